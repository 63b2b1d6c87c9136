"""Nothing is lost: a run that is killed at any instant arrives where the undisturbed run arrives, bit for bit.

The instants are random; the seed is printed, and MUSTER_SEED=N takes the same decisions again.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import time
import unittest
from pathlib import Path

import muster

STEPS = 300
EVERY = 4

CONFIG = """
[model]
layers = 2
width = 64
heads = 4
dropout = 0.1

[train]
steps = {steps}
batch = 16
sequence = 64
shards = 4
reduction = "invariant"

[data]
path = "{data}"
documents = true

[run]
threads = 1

[schedule]
warmup = 10

[checkpoint]
every = {every}
keep = 3
"""


def attempts(run_dir):
    folder = Path(run_dir) / "attempts"
    return sorted(int(name) for name in os.listdir(folder)) if folder.exists() else []


def whole_records(run_dir):
    """Records of the lines that are whole by now."""
    return muster.metrics(run_dir) if (Path(run_dir) / "metrics.jsonl").exists() else []


def begun_from(run_dir):
    """The step from which the last attempt says that it starts: 0 for a new run."""
    log = Path(run_dir) / "log" / "rank-0.log"
    told = re.findall(r"a new run in|resuming from \S+/step-\d+ \(step (\d+) of", log.read_text())
    return int(told[-1] or 0)


def newest_of_earlier(run_dir, attempt):
    """The newest complete checkpoint that an attempt before this one saved."""
    rows = [line.split() for line in muster.call("checkpoint", "list", run_dir).out.splitlines()[1:]]
    return max([int(row[0]) for row in rows if row[-1] == "complete" and int(row[1]) < attempt], default=0)


def partials(run_dir):
    folder = Path(run_dir) / "checkpoints"
    return [name for name in os.listdir(folder) if ".partial-" in name] if folder.exists() else []


class Resume(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.room = muster.Room("resume")
        cls.addClassCleanup(cls.room.close)
        cls.config = cls.room.config(
            "resume", CONFIG.format(steps=STEPS, every=EVERY, data=muster.prepare(cls.room / "data")))
        done = muster.train(cls.config, cls.room / "undisturbed", 1, {})
        assert done.code == 0, done
        cls.wanted_hash = muster.checkpoint_hash(cls.room / "undisturbed", STEPS)
        cls.wanted_losses = [r["loss"] for r in muster.metrics(cls.room / "undisturbed")]
        seed = int(os.environ.get("MUSTER_SEED", random.SystemRandom().randrange(10**6)))
        print(f"MUSTER_SEED={seed}", flush=True)
        cls.rng = random.Random(seed)

    def start(self, run_dir, ranks, settings=None, launcher=()):
        process = muster.start(ranks, ["train", self.config, f"--run.dir={run_dir}", *muster.keys(settings or {})],
                               launcher=launcher)
        self.addCleanup(muster.end, process)
        return process

    def wait_for_steps(self, process, run_dir, before, steps):
        """Until the attempt that began after those of `before` has recorded so many steps."""

        def reached():
            self.assertIsNone(process.poll(), "the run ended before its time")
            return sum(r["attempt"] > before for r in whole_records(run_dir)) >= steps

        muster.wait_until(reached, 120, f"{steps} steps of {run_dir}")

    def assert_began_from_newest(self, run_dir, newest, alive):
        """`newest` was complete before the start; ranks that still lived then may have saved another since."""
        began = begun_from(run_dir)
        if alive:
            self.assertGreaterEqual(began, newest)
        else:
            self.assertEqual(began, newest)
        self.assertLessEqual(newest_of_earlier(run_dir, attempts(run_dir)[-1]), began)

    def assert_arrived(self, run_dir):
        records = muster.metrics(run_dir)
        self.assertEqual([r["step"] for r in records], list(range(1, STEPS + 1)), "each step stands once")
        self.assertEqual([r["loss"] for r in records], self.wanted_losses)
        self.assertEqual(muster.checkpoint_hash(run_dir, STEPS), self.wanted_hash)
        leftovers = [n for n in os.listdir(Path(run_dir) / "checkpoints") if not re.fullmatch(r"step-\d{8}", n)]
        self.assertEqual([n for n in leftovers if ".replaced-" not in n], [])

    def test_killed_at_random_instants_it_arrives_where_the_undisturbed_run_arrives(self):
        run_dir = self.room / "killed"
        ways = ["rank"] * 4 + ["all"] * 2 + ["start"] * 2
        self.rng.shuffle(ways)
        # Its ranks go on until the next attempt takes over: the run must not be at its end then.
        ways.insert(4, "mpirun")
        inside_a_save = met_living = kills = ranks = 0
        old = None
        while ways or inside_a_save < 3:
            way = ways.pop() if ways else "save"
            # Between the others, so that saves are met at all places of the run.
            if way in ("rank", "all") and inside_a_save < 3 and self.rng.random() < 0.6:
                ways.insert(self.rng.randrange(len(ways) + 1), way)
                way = "save"
            ranks = self.rng.choice([r for r in (1, 2, 3, 4) if r != ranks])
            before = (attempts(run_dir) or [0])[-1]
            newest = (muster.complete_steps(run_dir) or [0])[-1]
            alive = muster.ranks_of(old) if old else []
            process = self.start(run_dir, ranks)
            met_living += any(pid in muster.ranks_of(old) for pid in alive) if old else 0
            if way == "start":
                time.sleep(self.rng.uniform(0, 1))
            else:
                self.wait_for_steps(process, run_dir, before, self.rng.randint(1, 6))
                self.assert_began_from_newest(run_dir, newest, alive)
            if way == "save":
                muster.wait_until(lambda: partials(run_dir), 60, "a save", pause=0)
                time.sleep(self.rng.uniform(0, 0.01))
            elif way != "start":
                time.sleep(self.rng.uniform(0, 0.02))
            living = muster.ranks_of(process)
            if way == "mpirun":
                os.kill(process.pid, signal.SIGKILL)
            elif way == "all" or not living:
                muster.kill_session(process)
            else:
                os.kill(self.rng.choice(living), signal.SIGKILL)
            kills += 1
            if way != "mpirun":
                muster.finish(process)
                muster.wait_until(lambda: not muster.ranks_of(process), 30, "the ranks to end")
            if way == "save" and partials(run_dir):
                inside_a_save += 1
            old = process
        print(f"{kills} kills, {inside_a_save} inside a save, {met_living} met living ranks", flush=True)
        self.assertGreaterEqual(kills, 10)
        self.assertEqual(met_living, 1, "the ranks of the killed mpirun were gone before the next attempt began")

        newest = muster.complete_steps(run_dir)[-1]
        alive = muster.ranks_of(old)
        done = muster.finish(self.start(run_dir, 2))
        self.assertEqual(done.code, 0, done)
        self.assertIn(f"(step {begun_from(run_dir)} of {STEPS})", done.out)
        self.assert_began_from_newest(run_dir, newest, alive)
        self.assert_arrived(run_dir)

    def test_an_older_attempt_that_wakes_up_writes_nothing(self):
        run_dir = self.room / "woken"
        older = self.start(run_dir, 2)
        self.wait_for_steps(older, run_dir, 0, 6)
        sleepers = muster.ranks_of(older)
        self.assertEqual(len(sleepers), 2)
        for pid in sleepers:
            os.kill(pid, signal.SIGSTOP)
        newer = self.start(run_dir, 3, {"run.takeover": True})
        self.wait_for_steps(newer, run_dir, 1, 3)
        for pid in sleepers:
            os.kill(pid, signal.SIGCONT)
        told = muster.finish(older)
        self.assertEqual(told.code, muster.USER_ERROR, told)
        self.assertEqual(len(told.complaints()), 1, told)
        self.assertIn("attempt 2", told.complaints()[0])
        done = muster.finish(newer)
        self.assertEqual(done.code, 0, done)
        self.assert_arrived(run_dir)

    def test_a_second_start_leaves_the_first_in_peace(self):
        run_dir = self.room / "twice"
        first = self.start(run_dir, 2)
        self.wait_for_steps(first, run_dir, 0, 3)
        ranks = muster.ranks_of(first)
        for pid in ranks:  # so that it lives longer than the second one waits
            os.kill(pid, signal.SIGSTOP)
        told = muster.finish(self.start(run_dir, 3))
        for pid in ranks:
            os.kill(pid, signal.SIGCONT)
        self.assertEqual(told.code, muster.USER_ERROR, told)
        self.assertEqual(len(told.complaints()), 1, told)
        self.assertIn("--run.takeover", told.complaints()[0])
        self.assertTrue(any(f"pid {pid}" in told.complaints()[0] for pid in ranks), told)
        self.assertEqual(attempts(run_dir), [1])
        done = muster.finish(first)
        self.assertEqual(done.code, 0, done)
        self.assert_arrived(run_dir)

    def test_of_two_starts_at_once_one_trains(self):
        run_dir = self.room / "at_once"
        done = [muster.finish(process) for process in [self.start(run_dir, 1), self.start(run_dir, 1)]]
        refused = [one for one in done if one.code != 0]
        self.assertLessEqual(len(refused), 1, "\n".join(map(str, done)))
        for one in refused:  # it may have waited until the other was at its end
            self.assertEqual(one.code, muster.USER_ERROR, one)
            self.assertEqual(len(one.complaints()), 1, one)
            self.assertIn("--run.takeover", one.complaints()[0])
            self.assertEqual(attempts(run_dir), [1])
        self.assert_arrived(run_dir)

    def test_a_second_start_leaves_one_in_another_container_in_peace(self):
        container = ["unshare", "--pid", "--fork"]
        if subprocess.run([*container, "true"], capture_output=True).returncode != 0:
            self.skipTest("spaces of process numbers are not permitted here")
        run_dir = self.room / "containers"
        first = self.start(run_dir, muster.ALONE, launcher=container)
        self.wait_for_steps(first, run_dir, 0, 3)
        ranks = muster.ranks_of(first)
        for pid in ranks:  # so that it lives longer than the second one waits
            os.kill(pid, signal.SIGSTOP)
        told = muster.finish(self.start(run_dir, muster.ALONE, launcher=container))
        for pid in ranks:
            os.kill(pid, signal.SIGCONT)
        self.assertEqual(told.code, muster.USER_ERROR, told)
        self.assertEqual(len(told.complaints()), 1, told)
        self.assertIn("pid 1 of another container", told.complaints()[0])
        done = muster.finish(first)
        self.assertEqual(done.code, 0, done)
        self.assert_arrived(run_dir)

    def test_a_run_goes_on_from_another_folder(self):
        config = self.room.config("relative", CONFIG.format(steps=4, every=2, data="data"))
        options = {"capture_output": True, "text": True, "errors": "replace"}
        binary = os.path.abspath(muster.BINARY)
        begun = subprocess.run([binary, "train", config, "--run.dir=relative-run"], cwd=self.room.path, **options)
        self.assertEqual(begun.returncode, 0, begun.stdout + begun.stderr)
        gone_on = subprocess.run([binary, "train", self.room / "relative-run", "--train.steps=6"], cwd="/", **options)
        self.assertEqual(gone_on.returncode, 0, gone_on.stdout + gone_on.stderr)
        self.assertEqual(len(muster.metrics(self.room / "relative-run")), 6)
        self.assertIn('path = "data"', Path(config).read_text())

        # Moved with its data, it is told where these are now.
        (self.room / "moved").mkdir()
        for name in ("data", "relative-run"):
            shutil.copytree(self.room / name, self.room / "moved" / name)
        run_dir = self.room / "moved" / "relative-run"
        moved = subprocess.run([binary, "train", "relative-run", "--train.steps=8", "--data.path=data"],
                               cwd=run_dir.parent, **options)
        self.assertEqual(moved.returncode, 0, moved.stdout + moved.stderr)
        self.assertIn(f'path = "{run_dir.parent / "data"}"', (run_dir / "config.toml").read_text())

    def test_a_run_that_is_taken_over_while_its_parameters_travel_ends_with_one_line(self):
        run_dir = self.room / "taken-over"
        # Messages so large that the ranks copy from each other's memory for most of a step.
        process = self.start(run_dir, 2, {"model.layers": 4, "model.width": 512, "eval.every": 0, "checkpoint.every": 0})
        self.wait_for_steps(process, run_dir, 0, 2)
        shutil.copy(run_dir / "attempts" / "000001", run_dir / "attempts" / "000002")
        told = muster.finish(process)
        self.assertEqual(told.code, muster.USER_ERROR, told)
        self.assertEqual(len(told.complaints()), 1, told)
        self.assertIn("attempt 2", told.complaints()[0])

    def stop_and_go_on(self, name, stop, settings=None):
        run_dir = self.room / name
        process = self.start(run_dir, 2, settings)
        if stop:
            self.wait_for_steps(process, run_dir, 0, self.rng.randint(2, 10))
            stop(process)
        told = muster.finish(process)
        self.assertEqual(told.code, muster.INTERRUPTED, told)
        last = muster.metrics(run_dir)[-1]["step"]
        self.assertLess(last, STEPS)
        self.assertEqual(muster.complete_steps(run_dir)[-1], last, "it saved the step that it ended")
        done = muster.finish(self.start(run_dir, 1))
        self.assertEqual(done.code, 0, done)
        self.assertIn(f"(step {last} of {STEPS})", done.out)
        self.assert_arrived(run_dir)

    def test_sigterm_to_one_rank_saves_and_ends_with_85(self):
        self.stop_and_go_on("sigterm", lambda p: os.kill(self.rng.choice(muster.ranks_of(p)), signal.SIGTERM))

    def test_sigterm_twice_in_a_row_as_slurm_sends_it_saves_and_ends_with_85(self):
        def twice(process):
            for _ in range(2):
                for pid in muster.ranks_of(process):
                    os.kill(pid, signal.SIGTERM)

        self.stop_and_go_on("sigterm-twice", twice)

    def test_sigusr1_to_mpirun_saves_and_ends_with_85(self):
        self.stop_and_go_on("sigusr1", lambda p: os.kill(p.pid, signal.SIGUSR1))

    def test_a_time_limit_saves_and_ends_with_85(self):
        self.stop_and_go_on("time-limit", None, {"run.time_limit": 0.5})

    def test_a_damaged_checkpoint_is_passed_over_with_a_warning(self):
        run_dir = self.room / "damaged"
        self.assertEqual(muster.train(self.config, run_dir, 3, {}).code, 0)
        self.assertEqual(muster.complete_steps(run_dir), [STEPS - 2 * EVERY, STEPS - EVERY, STEPS],
                         "checkpoint.keep = 3")
        for step in (STEPS, STEPS - EVERY):
            file = run_dir / "checkpoints" / f"step-{step:08}" / f"rank-{self.rng.randrange(3):05}.h5"
            contents = bytearray(file.read_bytes())
            contents[self.rng.randrange(len(contents))] ^= 1 << self.rng.randrange(8)
            file.write_bytes(contents)
        done = muster.train(self.config, run_dir, 2, {})
        self.assertEqual(done.code, 0, done)
        for step in (STEPS, STEPS - EVERY):
            self.assertRegex(done.err, rf"warning: skipping \S+/step-{step:08}: .*checksum")
        self.assertIn(f"(step {STEPS - 2 * EVERY} of {STEPS})", done.out)
        self.assert_arrived(run_dir)


if __name__ == "__main__":
    unittest.main(verbosity=2)
