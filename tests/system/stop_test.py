"""Asked to stop, a run ends the work in hand, saves and ends with 85, whatever it is at and whoever asks.

A disk that is slow where the test wants it holds the run in a phase until the signal has come.
"""

import os
import signal
import time
import unittest
from pathlib import Path

import muster

CONFIG = """
[model]
layers = 1
width = 32
heads = 2

[train]
steps = 100000
batch = 8
sequence = 32

[data]
path = "{data}"

[run]
threads = 1

[checkpoint]
every = 0
"""


class Stop(muster.TrainingTest):
    @classmethod
    def setUpClass(cls):
        cls.room = muster.Room("stop")
        cls.addClassCleanup(cls.room.close)
        data = muster.prepare(cls.room / "data", documents=200)
        # Its evaluation reads some 700 windows.
        cls.held_out = muster.prepare(cls.room / "held-out", documents=200, validation=0.9)
        cls.config = cls.room.config("stop", CONFIG.format(data=data))

    def wait_for_disk(self, process, run_dir, calls=1):
        """Until the slow disk has met so many calls."""

        def met():
            self.assertIsNone(process.poll(), "the run ended before its time")
            return len(muster.lines(self.disk_log(run_dir))) >= calls

        muster.wait_until(met, 120, "the slow disk")

    def wait_for_steps(self, process, run_dir, steps):
        def reached():
            self.assertIsNone(process.poll(), "the run ended before its time")
            return len(muster.metrics(run_dir)) >= steps

        muster.wait_until(reached, 120, f"{steps} steps")

    def log(self, run_dir, rank=0):
        return Path(run_dir, "log", f"rank-{rank}.log").read_text()

    def assert_stopped(self, process, run_dir, after=None):
        """With what it had taken saved; `after` so many steps, if that is known."""
        told = muster.finish(process)
        self.assertEqual(told.code, muster.INTERRUPTED, told)
        self.assertEqual(told.complaints(), [])
        taken = len(muster.metrics(run_dir))
        if after is not None:
            self.assertEqual(taken, after)
        self.assertEqual(muster.complete_steps(run_dir)[-1:], [taken] if taken else [])
        return told

    def assert_goes_on(self, run_dir, settings=None):
        before = len(muster.metrics(run_dir))
        done = muster.finish(self.start(run_dir, {"train.steps": before + 2, "schedule.kind": "constant",
                                                  **(settings or {})}))
        self.assertEqual(done.code, 0, done)
        self.assertEqual(len(muster.metrics(run_dir)), before + 2)

    def test_every_stop_signal_saves_in_a_run_of_one_rank(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            with self.subTest(number.name):
                run_dir = self.room.new("steps")
                process = self.start(run_dir, {"schedule.kind": "constant"})
                self.wait_for_steps(process, run_dir, 3)
                process.send_signal(number)
                told = self.assert_stopped(process, run_dir)
                self.assertIn(f"{number.name}: stopping", told.err)
                self.assert_goes_on(run_dir)

    def test_an_evaluation_ends_at_its_next_window(self):
        slow = "read 1+ delay=0.1 *held-out/validation*"
        # Nothing reads the windows before the evaluation does.
        settings = {"data.path": self.held_out, "data.verify": "size", "eval.every": 1}
        for ranks in (muster.ALONE, 2):
            for of_all in (False, True) if ranks else (True,):
                with self.subTest(ranks=ranks, of_all=of_all):
                    run_dir = self.room.new("evaluation")
                    process = self.start(run_dir, settings, ranks=ranks, disk=slow)
                    self.wait_for_disk(process, run_dir, 30)
                    # To mpirun, which hands it on, or to the last rank alone.
                    os.kill(process.pid if of_all else muster.rank_of(process, 1), signal.SIGUSR1)
                    self.assert_stopped(process, run_dir, after=1)
                    self.assertIn("asked to stop: the evaluation after step 1 is not finished", self.log(run_dir))
                    self.assertLess(len(muster.lines(self.disk_log(run_dir))), 300, "windows read of some 700")

    def test_a_save_is_ended_and_no_step_follows(self):
        run_dir = self.room.new("save")
        process = self.start(run_dir, {"checkpoint.every": 3}, disk="fsync 1 delay=2 */rank-00000.h5")
        self.wait_for_disk(process, run_dir)
        process.send_signal(signal.SIGTERM)
        self.assert_stopped(process, run_dir, after=3)

    def test_the_start_and_the_loading_end_without_a_step(self):
        run_dir = self.room.new("start")
        for step, slow in ((0, "open 1 delay=2 */dataset.json"), (3, "read 1 delay=2 */rank-00000.h5")):
            with self.subTest(slow):
                Path(self.disk_log(run_dir)).unlink(missing_ok=True)
                process = self.start(run_dir, {"schedule.kind": "constant"}, disk=slow)
                self.wait_for_disk(process, run_dir)
                process.send_signal(signal.SIGINT)
                self.assert_stopped(process, run_dir, after=step)
                self.assertIn(f"stopped after step {step} of", self.log(run_dir))
                done = muster.finish(self.start(run_dir, {"schedule.kind": "constant", "train.steps": step + 3}))
                self.assertEqual(done.code, 0, done)

    def test_a_run_in_its_last_save_is_done(self):
        run_dir = self.room.new("end")
        process = self.start(run_dir, {"train.steps": 3}, disk="fsync 1 delay=2 */rank-00000.h5")
        self.wait_for_disk(process, run_dir)
        process.send_signal(signal.SIGTERM)
        told = muster.finish(process)
        self.assertEqual(told.code, 0, told)
        self.assertEqual(muster.complete_steps(run_dir), [3])

    def test_what_launchers_repeat_is_one_wish_and_who_insists_is_told_what_is_lost(self):
        run_dir = self.room.new("insist")
        process = self.start(run_dir, {"checkpoint.every": 3}, disk="fsync 1 hang */rank-00000.h5")
        self.wait_for_disk(process, run_dir)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        time.sleep(6.5)  # beyond the five seconds in which a signal may come twice
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)
        self.assertIsNone(process.poll(), "another signal is the same wish")
        process.send_signal(signal.SIGTERM)
        told = muster.finish(process)
        self.assertEqual(told.code, muster.INTERRUPTED, told)
        self.assertIn("SIGTERM again: ended at once; steps since the last checkpoint, which are lost: 3\n", told.err)
        self.assertEqual(muster.complete_steps(run_dir), [])
        done = muster.finish(self.start(run_dir, {"train.steps": 4}))
        self.assertEqual(done.code, 0, done)
        self.assertEqual(os.listdir(run_dir / "checkpoints"), ["step-00000004"], "what was unfinished is gone")

    def test_a_hangup_that_was_ignored_from_the_start_stays_ignored(self):
        run_dir = self.room.new("nohup")
        process = self.start(run_dir, {"train.steps": 200},
                             preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        self.wait_for_steps(process, run_dir, 3)
        process.send_signal(signal.SIGHUP)
        told = muster.finish(process)
        self.assertEqual(told.code, 0, told)
        self.assertEqual(len(muster.metrics(run_dir)), 200)

    def test_an_output_that_nobody_reads_any_more_does_not_end_a_run(self):
        run_dir = self.room.new("head")
        process = self.start(run_dir, {"train.steps": 200})
        process.stdout.readline()
        process.stdout.close()
        self.assertEqual(process.wait(timeout=300), 0, process.stderr.read())
        self.assertIn(" 200/200 ", self.log(run_dir))
        self.assertEqual(muster.complete_steps(run_dir), [200])


if __name__ == "__main__":
    unittest.main(verbosity=2)
