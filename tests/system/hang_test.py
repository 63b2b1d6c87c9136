"""Who works is left in peace, however slow its disk; who hangs is named, and all ranks end with 75.

Limits of the watchdog are short here, and the disk is slower than they are.
"""

import os
import re
import signal
import unittest
from pathlib import Path

import muster

CONFIG = """
[model]
layers = 1
width = 32
heads = 2

[train]
steps = 4
batch = 8
sequence = 32

[data]
path = "{data}"

[run]
threads = 1
watchdog = 3

[checkpoint]
every = 2
keep = 1

[eval]
every = 2
"""

TRY_AGAIN = 75


class Hang(muster.TrainingTest):
    @classmethod
    def setUpClass(cls):
        cls.room = muster.Room("hang")
        cls.addClassCleanup(cls.room.close)
        cls.config = cls.room.config("hang", CONFIG.format(data=muster.prepare(cls.room / "data")))

    def assert_named(self, process, run_dir, pattern, *, by):
        """All end with 75, and one of the ranks `by` has said why: on the screen and in its log."""
        told = muster.finish(process)
        self.assertEqual(told.code, TRY_AGAIN, told)
        self.assertRegex("\n".join(told.complaints()), pattern)
        muster.wait_until(lambda: not muster.ranks_of(process), 60, "the ranks to end")
        logs = [Path(run_dir, "log", f"rank-{rank}.log") for rank in by]
        self.assertTrue(any(re.search(pattern, log.read_text()) for log in logs if log.exists()), told)
        return told

    # Slow, but alive

    def test_a_sync_or_a_removal_slower_than_the_watchdog_ends_no_run(self):
        for ranks, slow in ((2, "fsync 1+ delay=4 */checkpoints/*.h5"), (2, "unlink 1+ delay=4 */checkpoints/*"),
                            (2, "fsync 1+ delay=4 *.partial-*; fsync 1 delay=5 */attempts"),
                            (muster.ALONE, "fsync 1+ delay=4 */checkpoints/*")):
            with self.subTest(ranks=ranks, slow=slow):
                run_dir = self.room.new("run")
                done = muster.finish(self.start(run_dir, ranks=ranks, disk=slow))
                self.assertEqual(done.code, 0, done)
                self.assertGreater(len(muster.lines(f"{run_dir}.disk")), 1)
                self.assertEqual(muster.complete_steps(run_dir), [4])
                self.assertEqual(os.listdir(run_dir / "checkpoints"), ["step-00000004"])

    def test_reading_slower_than_the_watchdog_ends_no_run_while_it_gets_on(self):
        for files in ("*/validation-*", "*/rank-*.h5"):
            with self.subTest(files):
                slow = ";".join(f"read {n} delay=2 {files}" for n in range(1, 5))
                run_dir = self.room.new("run")
                begun = muster.finish(self.start(run_dir, {"train.steps": 2, "schedule.kind": "constant"}, ranks=2))
                self.assertEqual(begun.code, 0, begun)
                # Evaluations of a few windows; a checkpoint that is verified and loaded.
                done = muster.finish(self.start(run_dir, {"schedule.kind": "constant"}, ranks=2, disk=slow,
                                                of_rank=0))
                self.assertEqual(done.code, 0, done)
                self.assertGreater(len(muster.lines(f"{run_dir}.disk")), 2)

    def test_reads_and_writes_that_do_half_of_what_they_are_asked_are_asked_again(self):
        run_dir = self.room.new("run")
        short = f"read 1+ short {self.room.path}/*; write 1+ short {self.room.path}/*"
        for steps in (2, 4):
            done = muster.finish(self.start(run_dir, {"train.steps": steps, "schedule.kind": "constant"}, ranks=2, disk=short))
            self.assertEqual(done.code, 0, done)
            muster.checkpoint_hash(run_dir, steps)  # fails unless intact
        met = "\n".join(muster.lines(f"{run_dir}.disk"))
        for call in ("write .*/attempts/", "write .*/metrics.jsonl", "write .*/rank-00001.h5", "read .*/train-"):
            self.assertRegex(met, call)

    def test_the_line_of_a_refusal_is_out_though_its_rank_is_the_last_to_end(self):
        run_dir = self.room.new("run")
        # Once the first has gone, mpirun ends the others, however late they are.
        process = self.start(run_dir, {"data.path": self.room / "none"}, ranks=3, of_rank=0,
                             disk="unlink 1 delay=5 *vader_segment*")
        told = muster.finish(process)
        self.assertEqual(told.code, muster.USER_ERROR, told)
        self.assertEqual(len(told.complaints()), 1, told)
        self.assertIn(str(self.room / "none"), told.complaints()[0])

    # Hanging

    def test_a_rank_whose_sync_never_ends_is_named(self):
        run_dir = self.room.new("run")
        process = self.start(run_dir, ranks=2, disk="fsync 1 hang */rank-00001.h5")
        told = self.assert_named(
            process, run_dir, r"rank 1 on .* at step 2: has got no further for \d+ s in writing a checkpoint", by=[1])
        self.assertEqual(muster.complete_steps(run_dir), [])
        done = muster.finish(self.start(run_dir, ranks=2))
        self.assertEqual(done.code, 0, done)
        self.assertEqual(os.listdir(run_dir / "checkpoints"), ["step-00000004"], told)

    def test_a_read_that_never_ends_ends_a_rank_alone_too(self):
        for ranks in (muster.ALONE, 2):
            with self.subTest(ranks=ranks):
                run_dir = self.room.new("run")
                process = self.start(run_dir, {"train.steps": 100}, ranks=ranks, disk="read 40 hang */train-*",
                                     of_rank=1 if ranks else None)
                rank = 1 if ranks else 0
                self.assert_named(
                    process, run_dir, rf"rank {rank} on .*: has got no further for \d+ s in reading data", by=[rank])

    def test_a_rank_that_is_stopped_is_named_whatever_it_was_at(self):
        ended = self.room.new("run")
        self.assertEqual(muster.finish(self.start(ended, {"schedule.kind": "constant"}, ranks=2)).code, 0)
        again = {"train.steps": 8, "schedule.kind": "constant"}
        for run_dir, phase, settings in (
                (self.room.new("run"), "open 1 stop */dataset.json", {}), (ended, "read 1 stop */rank-00001.h5", again),
                (self.room.new("run"), "read 40 stop */train-*", {"train.steps": 100}),
                (self.room.new("run"), "read 1 stop */validation-*.h5", {"train.steps": 100}),
                (self.room.new("run"), "fsync 1 stop */rank-00001.h5", {})):
            with self.subTest(phase):
                process = self.start(run_dir, settings, ranks=2, disk=phase, of_rank=1)
                told = muster.finish(process)
                self.assertEqual(told.code, TRY_AGAIN, told)
                self.assertRegex("\n".join(told.complaints()),
                                 r"rank 0 on .* has waited \d+ s in .* for rank 1 \(silent for \d+ s\); ending all")
                muster.wait_until(lambda process=process: not muster.ranks_of(process), 60, "the ranks to end")

    # What was lost

    def test_a_kill_between_the_last_save_and_the_end_loses_no_record(self):
        # In the removal of the older checkpoint, and when the last evaluation is written into the metrics.
        for kill in ("unlink 1 kill */checkpoints/*", "rename 2 kill */metrics.jsonl.partial-*"):
            with self.subTest(kill):
                run_dir = self.room.new("run")
                settings = {"schedule.kind": "constant"}
                self.assertEqual(muster.finish(self.start(run_dir, settings, disk=kill)).code, -signal.SIGKILL)
                self.assertEqual(muster.complete_steps(run_dir)[-1], 4)
                done = muster.finish(self.start(run_dir, {**settings, "train.steps": 6}))
                self.assertEqual(done.code, 0, done)
                self.assertEqual([record["step"] for record in muster.metrics(run_dir)], [1, 2, 3, 4, 5, 6], done)

    def test_a_disk_with_room_for_one_more_than_is_kept_survives_a_kill_inside_a_save(self):
        if os.geteuid() != 0:
            self.skipTest("only root can mount a small disk")
        disk = self.room.new("run")
        disk.mkdir()
        saved = self.room.new("run")
        self.assertEqual(muster.finish(self.start(saved)).code, 0)
        size = sum(f.stat().st_size for f in (saved / "checkpoints" / "step-00000004").iterdir())
        # Room for two of them, the one that is kept and a new one, and for the small files.
        mount = ["mount", "-t", "tmpfs", "-o", f"size={2 * size + size // 2}", "tmpfs", str(disk)]
        if os.system(" ".join(mount) + " 2> /dev/null") != 0:
            self.skipTest("no small disk can be mounted here")
        self.addCleanup(os.system, f"umount {disk}")
        run_dir = disk / "run"
        for kill in ("fsync 2 kill */rank-00000.h5", "rename 2 kill */checkpoints/step-00000004.partial-*",
                     "unlink 1 kill */checkpoints/*"):
            with self.subTest(kill):
                process = self.start(run_dir, disk=kill)
                self.assertEqual(muster.finish(process).code, -signal.SIGKILL)
                left = os.listdir(run_dir / "checkpoints")
                self.assertGreater(len(left), 1, left)
                done = muster.finish(self.start(run_dir))
                self.assertEqual(done.code, 0, done)
                self.assertEqual(os.listdir(run_dir / "checkpoints"), ["step-00000004"])
                os.system(f"rm -rf {run_dir}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
