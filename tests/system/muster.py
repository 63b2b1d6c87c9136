"""What the system tests share: data made from nothing, runs started through mpirun, and what they leave.

The program is named by the environment variable MUSTER; the tests stand on Python's standard library alone.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("MUSTER", "build/release/muster")
INTERRUPTED = 85
USER_ERROR = 2

WORDS = (
    "the of and a to in is was he for it with as his on be at by had not are but from or have an they which one "
    "you were her all she there would their we him been has when who will more no if out so said what up its "
    "about into than them can only other new some could time these two may then do first any my now such like"
).split()


def write_documents(path, documents, seed=1, longest=60):
    """JSON lines: documents of one to `longest` words, the same bytes whenever the seed is the same."""
    rng = random.Random(seed)
    with open(path, "w") as out:
        for _ in range(documents):
            text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, longest)))
            out.write(json.dumps({"text": text}) + "\n")


def prepare(folder, *, documents=400, seed=1, longest=60, validation=0.1, options=()):
    """A dataset in `folder`, made by the program itself."""
    source = str(folder) + ".jsonl"
    write_documents(source, documents, seed, longest)
    subprocess.run([BINARY, "prepare", source, "--output", str(folder), "--validation", str(validation), *options],
                   check=True, stdout=subprocess.DEVNULL)
    return str(folder)


def keys(settings):
    """{"train.steps": 3} as --train.steps=3."""

    def spell(value):
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value)

    return [f"--{key}={spell(value)}" for key, value in settings.items()]


def mpi_environment():
    environment = dict(os.environ)
    environment.update({
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_mpi_yield_when_idle": "1",
        # A container's root is not the root that Open MPI warns of.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    })
    return environment


ALONE = None  # a rank without mpirun


def command(ranks, arguments, environment=None):
    launcher = [] if ranks is ALONE else ["mpirun", "--bind-to", "none", "-n", str(ranks)]
    # For the ranks only: what is preloaded into them is not for mpirun.
    variables = ["env", *[f"{name}={value}" for name, value in environment.items()]] if environment else []
    return [*launcher, *variables, BINARY, *[str(a) for a in arguments]]


def start(ranks, arguments, environment=None, launcher=(), **options):
    """In a session of its own, so that all its processes can be found and ended together."""
    return subprocess.Popen([*launcher, *command(ranks, arguments, environment)], env=mpi_environment(), start_new_session=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            errors="replace", **options)


def slow_disk(rules, log, rank=None):
    """The environment of ranks (or of one) whose calls on files meet these rules: tests/chaos/slow_disk.cpp."""
    environment = {"LD_PRELOAD": os.environ["SLOW_DISK_LIBRARY"], "SLOW_DISK": rules, "SLOW_DISK_LOG": str(log)}
    return environment if rank is None else {**environment, "SLOW_DISK_RANK": str(rank)}


def lines(path):
    """Those of a file that may not be there yet."""
    return Path(path).read_text().splitlines() if Path(path).exists() else []


class Finished:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def complaints(self):
        return [line for line in self.err.splitlines() if line.startswith("muster:")]

    def __str__(self):
        return f"exit code {self.code}\n{self.out[-3000:]}\n{self.err[-3000:]}"


def finish(process, limit=300):
    """Waits for mpirun; `limit` only keeps a hang from lasting for ever."""
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        kill_session(process)
        out, err = process.communicate()
        raise AssertionError(f"still running after {limit} s\n{out[-2000:]}\n{err[-2000:]}")
    return Finished(process.returncode, out, err)


def run(ranks, arguments, **options):
    return finish(start(ranks, arguments, **options))


def call(*arguments):
    """The program alone, without mpirun."""
    done = subprocess.run([BINARY, *[str(a) for a in arguments]], capture_output=True, text=True, errors="replace")
    return Finished(done.returncode, done.stdout, done.stderr)


def instruction_sets():
    """Those of this processor, as the program names them."""
    refused = subprocess.run([BINARY, "plan", ROOT / "configs/tiny.toml"], capture_output=True, text=True,
                             env={**os.environ, "MUSTER_INSTRUCTION_SET": "none"})
    told = re.search(r"this processor has ([\w, ]+);", refused.stderr)
    if not told:
        raise AssertionError(refused.stderr)
    return told[1].split(", ")


def train(config, run_dir, ranks, settings, **options):
    return run(ranks, ["train", config, f"--run.dir={run_dir}", *keys(settings)], **options)


def metrics(run_dir):
    path = Path(run_dir) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def checkpoint_hash(run_dir, step):
    """Of the parameters and the optimizer's state, whichever ranks wrote them."""
    done = call("checkpoint", "verify", run_dir, step)
    if done.code != 0:
        raise AssertionError(f"the checkpoint of step {step} in {run_dir} is not intact\n{done}")
    return done.out.split(", values ")[1].strip()


def complete_steps(run_dir):
    """Steps of the checkpoints with a final name."""
    folder = Path(run_dir) / "checkpoints"
    names = [p.name for p in folder.iterdir()] if folder.exists() else []
    return sorted(int(n[5:]) for n in names if n.startswith("step-") and n[5:].isdigit())


def plan(config, ranks, settings):
    done = call("plan", config, "--ranks", ranks, "--json", *keys(settings))
    if done.code != 0:
        raise AssertionError(str(done))
    return json.loads(done.out)


# Processes, by /proc.


def processes(where):
    """{pid: fields of /proc/PID/stat after the name} of the processes for which `where(fields)` holds."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path(f"/proc/{entry}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = stat[stat.rindex(")") + 2:].split()
        if where(fields):
            found[int(entry)] = fields
    return found


def is_muster(pid):
    try:
        return os.path.samefile(f"/proc/{pid}/exe", BINARY)
    except OSError:
        return False


def ranks_of(process):
    """Pids of the ranks that this mpirun started and that live: its session's, or those that left it."""
    inside = processes(lambda f: f[0] not in "ZX" and (int(f[3]) == process.pid or int(f[1]) == process.pid))
    return sorted(pid for pid in inside if is_muster(pid))


def rank_of(process, rank):
    """The pid of this rank."""
    for pid in ranks_of(process):
        if f"OMPI_COMM_WORLD_RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return pid
    raise AssertionError(f"rank {rank} does not live")


def kill_session(process):
    for pid in [*ranks_of(process), process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def end(process):
    """Whatever is left of it."""
    kill_session(process)
    if process.stdout and not process.stdout.closed:
        process.communicate()


def wait_until(condition, limit, what, pause=0.005):
    """Polls; the limit only keeps a failure from lasting for ever."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {limit} s for {what}")
        time.sleep(pause)


class Room:
    """A folder for one test program's files, gone at its end."""

    def __init__(self, name):
        self.path = Path(tempfile.mkdtemp(prefix=f"muster-{name}-"))
        self.made = 0

    def new(self, name):
        """A path that nothing has yet."""
        self.made += 1
        return self.path / f"{name}-{self.made}"

    def __truediv__(self, name):
        return self.path / name

    def config(self, name, text):
        path = self.path / f"{name}.toml"
        path.write_text(text)
        return str(path)

    def close(self):
        shutil.rmtree(self.path, ignore_errors=True)


class TrainingTest(unittest.TestCase):
    """Starts runs of `config`, which a test program writes into its room, and ends those that still live."""

    config = None

    @staticmethod
    def disk_log(run_dir):
        return f"{run_dir}.disk"

    def start(self, run_dir, settings=None, *, ranks=ALONE, disk=None, of_rank=None, **options):
        environment = slow_disk(disk, self.disk_log(run_dir), of_rank) if disk else None
        process = start(ranks, ["train", self.config, f"--run.dir={run_dir}", *keys(settings or {})], environment, **options)
        self.addCleanup(end, process)
        return process
