"""Where faults strike: a dataset, a run of it that goes on from fault to fault, and an undisturbed run to compare with.

The schedule is constant, so a run may be told to end at any step on the way and has the bits of the undisturbed one
there. Open MPI's own files and the user's cache lie in folders of the scene, so that what a fault leaves of them is seen.
"""

import fnmatch
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
import muster  # noqa: E402

LIBRARY = "build/release/tests/chaos/libslow_disk.so"
TRY_AGAIN = 75
FOR_EVER = 300  # s after which a process counts as hung; nothing that is right waits nearly as long
STEPS = 128     # of the undisturbed run
EVERY = 2       # steps between checkpoints
KEEP = 3

CONFIG = f"""
[run]
threads = 1
watchdog = {{watchdog}}

[model]
layers = 1
width = 32
heads = 2
dropout = 0.1

[data]
path = "{{data}}"
documents = true

[train]
steps = {STEPS}
batch = 8
sequence = 32
shards = 4
reduction = "invariant"

[schedule]
kind = "constant"
warmup = 4

[checkpoint]
every = {EVERY}
keep = {KEEP}

[eval]
every = 3
windows = 16
"""


class Failure(Exception):
    """A fault that was neither recovered from nor refused in a line."""


def expect(holds, *what):
    if not holds:
        raise Failure("\n".join(map(str, what)))


def one_complaint(told):
    """The line of a refusal: one, and no rank crashed."""
    expect(told.code == muster.USER_ERROR, "expected a refusal, exit code 2;", told)
    expect(len(told.complaints()) == 1, f"{len(told.complaints())} lines begin with muster:, not one;", told)
    return told.complaints()[0]


def files_of(folder):
    """{path: contents} of all files below it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def on(ranks):
    return f"on {ranks} rank{'s' * (ranks > 1)}" if ranks else "alone"


class Scene:
    def __init__(self):
        muster.BINARY = os.path.abspath(muster.BINARY)
        os.environ["SLOW_DISK_LIBRARY"] = os.path.abspath(os.environ.get("SLOW_DISK_LIBRARY", LIBRARY))
        for file in (muster.BINARY, os.environ["SLOW_DISK_LIBRARY"]):
            if not os.path.exists(file):
                raise SystemExit(f"chaos: there is no {file}: build it (./launch/build), or set MUSTER and SLOW_DISK_LIBRARY")
        self.room = muster.Room("chaos")
        # In memory, where Open MPI has its files else.
        self.shared_memory = Path(tempfile.mkdtemp(prefix="muster-chaos-", dir="/dev/shm"))
        self.mpi_sessions = self.room / "mpi"
        self.cache = self.room / "cache"
        self.mpi_sessions.mkdir()
        os.environ.update({
            "MUSTER_CHAOS": str(self.room.path),  # by which its processes are known
            "XDG_CACHE_HOME": str(self.cache),
            "OMPI_MCA_btl_vader_backing_directory": str(self.shared_memory),
            "OMPI_MCA_orte_tmpdir_base": str(self.mpi_sessions),
        })
        self.sources = self.room / "text.jsonl"
        muster.write_documents(self.sources, 200)
        self.data = self.room / "data"
        done = muster.finish(self.start_prepare(self.data), FOR_EVER)
        expect(done.code == 0, "no dataset can be made;", done)
        self.files_of_data = files_of(self.data)
        undisturbed = self.room / "undisturbed"
        done = muster.finish(muster.start(1, ["train", self.config(), f"--run.dir={undisturbed}", "--checkpoint.keep=0"]), FOR_EVER)
        expect(done.code == 0, "the undisturbed run fails;", done)
        self.undisturbed = undisturbed
        self.wanted = muster.metrics(undisturbed)
        self.hashes = {}
        self.run = self.ranks = None
        self.kept = False

    # Starting things

    def config(self, watchdog=FOR_EVER):
        path = self.room / f"watchdog-{watchdog}.toml"
        if not path.exists():
            path.write_text(CONFIG.format(watchdog=watchdog, data=self.data))
        return path

    def start_prepare(self, folder, disk=None):
        self.disk_log.unlink(missing_ok=True)
        environment = muster.slow_disk(disk, self.disk_log) if disk else None
        return muster.start(muster.ALONE, ["prepare", self.sources, "--output", folder, "--validation", 0.1,
                                           "--shard-tokens", 12000], environment)

    def begin(self):
        """A new run."""
        if self.run:
            shutil.rmtree(self.run, ignore_errors=True)
        self.run, self.ranks = self.room.new("run"), None

    def other_ranks(self, rng, least=0):
        """Another number than before: 0 for one without mpirun."""
        self.ranks = rng.choice([r for r in range(least, 5) if r != self.ranks])
        return self.ranks

    def start(self, ranks, steps, *, disk=None, of_rank=None, watchdog=FOR_EVER, of_run=False, options=()):
        """`of_run`: by its folder, and so by its own config.toml."""
        self.disk_log.unlink(missing_ok=True)
        environment = muster.slow_disk(disk, self.disk_log, of_rank if ranks else None) if disk else None
        what = [self.run] if of_run else [self.config(watchdog), f"--run.dir={self.run}"]
        return muster.start(ranks or muster.ALONE, ["train", *what, f"--train.steps={steps}", *options], environment)

    def finish(self, process):
        try:
            return muster.finish(process, FOR_EVER)
        except AssertionError as hung:
            raise Failure(hung) from None

    @property
    def disk_log(self):
        return self.room / "disk.log"

    def struck(self):
        """Whether the disk has met its rule."""
        return len(muster.lines(self.disk_log)) > 0

    def wait_for_strike(self, process):
        """Until the disk has met its rule, or the process has ended."""
        self.wait(lambda: self.struck() or process.poll() is not None, "the fault to strike")
        return self.struck()

    def wait(self, condition, what):
        try:
            muster.wait_until(condition, FOR_EVER, what)
        except AssertionError as late:
            raise Failure(late) from None

    # What holds of the run

    def saved(self):
        """The step of the newest complete checkpoint; 0 without one."""
        return (muster.complete_steps(self.run) or [0])[-1]

    def steps_ahead(self, steps):
        """Where a start is to end: an even step, at most so many on."""
        return self.saved() // EVERY * EVERY + steps

    def need_checkpoints(self, rng, number):
        """As a fault may want them to be there."""
        if len(muster.complete_steps(self.run)) < number:
            self.go_on(rng, steps=EVERY * number)

    def go_on(self, rng, steps=EVERY, **how):
        """On another number of ranks, without a fault: to the bits of the undisturbed run, and to clean folders."""
        last = self.steps_ahead(steps)
        ranks = self.other_ranks(rng)
        told = self.finish(self.start(ranks, last, **how))
        expect(told.code == 0, f"going on to step {last}, {on(ranks)}, fails;", told)
        self.check_arrived(last, told)
        self.check_clean(last)
        return told

    def check_arrived(self, last, told=""):
        records = muster.metrics(self.run)
        expect([r["step"] for r in records] == list(range(1, last + 1)), "metrics.jsonl has not each step once:",
               [r["step"] for r in records], told)
        for mine, its in zip(records, self.wanted):
            for name in ("loss", "grad_norm", "samples", "targets"):
                expect(mine[name] == its[name], f"{name} of step {mine['step']} is {mine[name]}, not {its[name]}")
            if "eval_loss" in mine and "eval_loss" in its:
                expect(mine["eval_loss"] == its["eval_loss"], f"another eval_loss at step {mine['step']}")
        self.check_bits(last)

    def check_bits(self, step):
        if step not in self.hashes:
            self.hashes[step] = muster.checkpoint_hash(self.undisturbed, step)
        try:
            mine = muster.checkpoint_hash(self.run, step)
        except AssertionError as damaged:
            raise Failure(damaged) from None
        expect(mine == self.hashes[step], f"step {step} has other bits than in the undisturbed run")

    # What is left behind (docs/lab/verification.md has the table)

    def processes(self):
        mark = f"MUSTER_CHAOS={self.room.path}".encode()

        def of_scene(pid):
            try:
                return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                return False

        return [pid for pid in muster.processes(lambda f: f[0] not in "ZX") if of_scene(pid)]

    def check_ended(self):
        """Nobody lives. (Ranks whose mpirun was killed look for it every few seconds.)"""
        self.wait(lambda: not self.processes(), "the processes to end")

    def check_mpi_clean(self, mpirun_killed=False):
        """Open MPI's own files; a killed mpirun leaves them, and is cleaned up after as docs/cluster.md says."""
        sessions = [p for p in self.mpi_sessions.rglob("*") if not p.is_dir()]
        left = [*self.shared_memory.iterdir(), *sessions]
        if mpirun_killed:
            for folder in (self.shared_memory, self.mpi_sessions):
                for path in folder.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            expect(not left, "left by Open MPI:", *left)

    def leftovers(self):
        """What stands in the folder of the run and is none of its files."""
        usual = ["config.toml", "run.json", "metrics.jsonl", "metrics.jsonl.damaged", "attempts/[0-9]*", "log/rank-[0-9].log",
                 "trace-step-*-rank-[0-9].json", "checkpoints/step-????????/manifest.json",
                 "checkpoints/step-????????/rank-0000[0-9].h5"]
        return [name for name in files_of(self.run) if not any(fnmatch.fnmatch(name, u) for u in usual)]

    def check_next_start_cleans(self):
        """Also one that has nothing else to do: what saves removes leftovers, too."""
        if not self.saved() or not self.leftovers():
            return
        told = self.finish(self.start(1, self.saved()))
        expect(told.code == 0, "a start with nothing to do fails;", told)
        expect(not self.leftovers(), "the next start leaves:", *self.leftovers())

    def check_clean(self, last):
        self.check_ended()
        self.check_mpi_clean()
        expect(not self.leftovers(), "left in the run's folder:", *self.leftovers())
        folders = sorted(os.listdir(self.run / "checkpoints"))
        expect(all(re.fullmatch(r"step-\d{8}", name) for name in folders) and len(folders) <= KEEP,
               f"checkpoints of a run to step {last} that keeps {KEEP}:", *folders)

    # Setting right

    def restore_data(self):
        if self.data.exists() and files_of(self.data) == self.files_of_data:
            return
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir()
        for name, contents in self.files_of_data.items():
            (self.data / name).write_bytes(contents)

    def end_all(self):
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.check_ended()
        self.check_mpi_clean(mpirun_killed=True)

    def keep(self, name):
        """After a failure: its run (and damaged data) stays for whoever looks at it, and the next fault strikes a new one."""
        self.kept = True
        self.end_all()
        kept = self.room / name
        kept.mkdir()
        for folder in (self.run, self.data):
            if folder and folder.exists():
                shutil.copytree(folder, kept / folder.name, symlinks=True)
        self.restore_data()
        self.begin()
        return kept

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end_all()
        shutil.rmtree(self.shared_memory, ignore_errors=True)
        if not self.kept:
            self.room.close()
