"""launch/train.sbatch beside a Slurm that is made up: when it tells the ranks to stop, and when it queues the job again.

tests/cluster/requeue does the like with a Slurm that is real.
"""

import os
import signal
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "launch" / "train.sbatch"

# Saves, if it is to, when it is told to stop, or when it starts; ends by itself with the code that it is given.
SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$ROOM/srun"
save() { [ -z "$SAVES" ] || echo "[12:00:00] saved runs/a/checkpoints/step-00000010 (1.2 MiB, 0.1 s)"; }
trap 'save; echo told >> "$ROOM/told"; exit 85' USR1 TERM
echo "a line of the log"
[ -z "$CODE" ] || { save; exit "$CODE"; }
echo $PPID > "$ROOM/started"
while :; do sleep 0.05; done
"""
SQUEUE = """#!/usr/bin/env bash
echo "$LEFT"
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = requeue ]; then echo "$2" >> "$ROOM/requeued"; exit; fi
echo "JobId=7 JobName=muster
   JobState=RUNNING Reason=None Dependency=(null)
   StartTime=2026-11-30T12:00:00 EndTime=2026-11-30T13:00:00 PreemptEligibleTime=2026-11-30T12:00:00 PreemptTime=$PREEMPTED
   Command=$COMMAND configs/tiny.toml"
"""


class Sbatch(unittest.TestCase):
    def setUp(self):
        room = tempfile.TemporaryDirectory(prefix="muster-sbatch-")
        self.addCleanup(room.cleanup)
        self.room = Path(room.name)
        self.tools = self.room / "tools"
        self.tools.mkdir()
        # The script waits for srun's daemon before it queues the job again; there is none here.
        sleep = "#!/usr/bin/env bash\n[ \"$1\" = 5 ] || exec /bin/sleep \"$@\"\n"
        for name, text in [("srun", SRUN), ("squeue", SQUEUE), ("scontrol", SCONTROL), ("sleep", sleep)]:
            self.program(self.tools / name, text)
        self.program(self.room / "tree/build/release/muster", "#!/bin/sh\n")

    @staticmethod
    def program(path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def start(self, *, left="UNLIMITED", saves=True, code="", preempted="None", command="tree/launch/train.sbatch"):
        environment = {**os.environ, "PATH": f"{self.tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "7",
                       "ROOM": str(self.room), "LEFT": left, "SAVES": "1" if saves else "", "CODE": str(code),
                       "PREEMPTED": preempted, "COMMAND": str(self.room / command)}
        environment.pop("MUSTER", None)
        process = subprocess.Popen(["bash", SCRIPT, "configs/tiny.toml", "--train.steps=9"], env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def finish(self, process):
        """Exit code, whether the job was queued again, and the log."""
        log, _ = process.communicate(timeout=60)
        requeued = self.room / "requeued"
        return process.returncode, requeued.exists() and requeued.read_text() == "7\n", log

    def wait_for(self, name):
        while not (self.room / name).exists():
            pass

    def test_a_time_limit_stops_the_ranks_before_it_and_queues_the_job_again(self):
        process = self.start(left="0:02")
        code, requeued, log = self.finish(process)
        self.assertEqual((code, requeued), (85, True), log)
        self.assertIn("a line of the log\n", log)
        self.assertEqual((self.room / "told").read_text(), "told\n", "once")

    def test_the_signal_leads_by_five_minutes_or_by_a_quarter_of_a_short_job(self):
        for left, wanted in [("4:00", 180), ("20:00", 900), ("1:00:00", 3300), ("2-03:04:05", 183545)]:
            with self.subTest(left=left):
                slept = self.room / "slept"
                self.program(self.tools / "sleep", f"#!/usr/bin/env bash\necho \"$1\" >> {slept}\nexec /bin/sleep 9999\n")
                self.program(self.tools / "srun", f"#!/usr/bin/env bash\nwhile [ ! -s {slept} ]; do :; done\nexit 0\n")
                slept.write_text("")
                self.assertEqual(self.finish(self.start(left=left))[0], 0)
                self.assertEqual(slept.read_text(), f"{wanted}\n")

    def test_a_stop_by_hand_is_passed_on_and_is_not_queued_again(self):
        for number in (signal.SIGUSR1, signal.SIGTERM):
            with self.subTest(signal=number):
                (self.room / "started").unlink(missing_ok=True)
                process = self.start(left="1:00:00")
                self.wait_for("started")
                process.send_signal(number)
                code, requeued, log = self.finish(process)
                self.assertEqual((code, requeued), (85, False), log)
                self.assertIn("by hand", log)

    def test_a_cancelled_job_whose_processes_are_all_told_is_logged_to_its_end_and_not_queued_again(self):
        process = self.start(left="1:00:00")
        self.wait_for("started")
        os.killpg(process.pid, signal.SIGTERM)
        code, requeued, log = self.finish(process)
        self.assertEqual((code, requeued), (85, False), log)
        self.assertIn("saved runs/a", log)
        self.assertIn("by hand", log)

    def test_ranks_that_were_told_by_others_are_not_queued_again(self):
        code, requeued, log = self.finish(self.start(code=85))
        self.assertEqual((code, requeued), (85, False), log)

    def test_a_preempted_job_is_queued_again(self):
        code, requeued, log = self.finish(self.start(code=85, preempted="2026-11-30T12:10:00"))
        self.assertEqual((code, requeued), (85, True), log)

    def test_usr2_says_that_the_time_is_up(self):
        process = self.start()
        self.wait_for("started")
        process.send_signal(signal.SIGUSR2)
        code, requeued, log = self.finish(process)
        self.assertEqual((code, requeued), (85, True), log)

    def test_lost_ranks_are_queued_again_where_a_checkpoint_was_saved(self):
        for code in (75, 137):
            for saves in (True, False):
                with self.subTest(code=code, saves=saves):
                    (self.room / "requeued").unlink(missing_ok=True)
                    ended, requeued, log = self.finish(self.start(code=code, saves=saves))
                    self.assertEqual((ended, requeued), (code, saves), log)
                    self.assertEqual("saved nothing" in log, not saves, log)

    def test_without_progress_a_time_limit_queues_nothing_again(self):
        code, requeued, log = self.finish(self.start(left="0:02", saves=False))
        self.assertEqual((code, requeued), (85, False), log)
        self.assertIn("saved nothing", log)

    def test_the_end_and_what_is_to_mend_end_the_job(self):
        for code in (0, 1, 2):
            with self.subTest(code=code):
                self.assertEqual(self.finish(self.start(code=code))[:2], (code, False))

    def test_the_program_lies_in_the_tree_or_the_installation_of_the_script(self):
        self.program(self.room / "prefix/bin/muster", "#!/bin/sh\n")
        for command, found in [("tree/launch/train.sbatch", "tree/build/release/muster"),
                               ("prefix/share/muster/launch/train.sbatch", "prefix/bin/muster")]:
            with self.subTest(command=command):
                (self.room / command).parent.mkdir(parents=True, exist_ok=True)
                self.finish(self.start(code=0, command=command))
                told = (self.room / "srun").read_text().splitlines()
                self.assertEqual(told[-4:], [str((self.room / found).resolve()), "train", "configs/tiny.toml",
                                             "--train.steps=9"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
