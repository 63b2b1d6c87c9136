"""What cmake --install puts below a prefix works from there, whatever becomes of the source tree's own program."""

import os
import re
import subprocess
import unittest
from pathlib import Path

import muster

BUILD = Path(muster.BINARY).resolve().parent


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.room = muster.Room("install")
        cls.addClassCleanup(cls.room.close)
        cls.prefix = cls.room / "prefix"
        subprocess.run(["cmake", "--install", str(BUILD), "--prefix", str(cls.prefix)], check=True,
                       stdout=subprocess.DEVNULL)
        cls.program = cls.prefix / "bin/muster"
        cls.share = cls.prefix / "share/muster"

    def call(self, *command, **environment):
        """In a folder that holds nothing of Muster's, with the installed program in PATH."""
        kept = {name: value for name, value in os.environ.items() if name != "MUSTER"}
        path = f"{self.program.parent}:{os.environ['PATH']}"
        return subprocess.run([str(part) for part in command], cwd=self.room.path, capture_output=True, text=True,
                              env={**kept, "PATH": path, **environment})

    def test_the_program_tells_what_it_is(self):
        told = self.call("muster", "--version")
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertRegex(told.stdout, r"\Amuster \d+\.\d+\.\d+\ncommit .+\nbackends cpu.*\n\Z")

    def test_it_plans_each_configuration_that_was_installed(self):
        configurations = sorted((self.share / "configs").glob("*.toml"))
        self.assertTrue(configurations)
        for configuration in configurations:
            planned = self.call("muster", "plan", configuration, "--model.vocabulary=256")
            self.assertEqual(planned.returncode, 0, f"{configuration}\n{planned.stdout}{planned.stderr}")

    def test_the_doctor_finds_the_installed_program(self):
        told = self.call(self.share / "launch/doctor")
        self.assertEqual(told.returncode, 0, told.stdout + told.stderr)
        version = self.call("muster", "--version").stdout.splitlines()[0]
        self.assertRegex(told.stdout, rf"(?m)^ok  muster +{re.escape(version)}, ")

    def test_the_batch_script_starts_the_installed_program(self):
        srun = self.room / "programs/srun"
        srun.parent.mkdir()
        srun.write_text('#!/bin/sh\nwhile case $1 in -*) true;; *) false;; esac; do shift; done\nexec "$@"\n')
        script = self.share / "launch/train.sbatch"
        (srun.parent / "squeue").write_text("#!/bin/sh\necho UNLIMITED\n")
        (srun.parent / "scontrol").write_text(f'#!/bin/sh\necho "   Command={script}"\n')
        for program in srun.parent.iterdir():
            program.chmod(0o755)
        done = self.call("bash", script, "--help", SLURM_JOB_ID="7", PATH=f"{srun.parent}:{os.environ['PATH']}")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("muster train", done.stdout)

    def test_losses_are_plotted(self):
        run = self.room / "run"
        run.mkdir()
        (run / "metrics.jsonl").write_text("".join(f'{{"step":{n},"loss":{9 - n}.5,"grad_norm":1}}\n' for n in (1, 2, 3)))
        plotted = self.call(self.share / "launch/plot", run)
        self.assertEqual(plotted.returncode, 0, plotted.stderr)
        self.assertTrue((run / "loss.png").stat().st_size > 0)

    def test_nothing_that_needs_the_source_tree_is_installed(self):
        installed = sorted(path.name for path in (self.share / "launch").iterdir())
        self.assertEqual(installed, ["doctor", "plot", "plot-scaling", "train.sbatch"])


if __name__ == "__main__":
    unittest.main()
