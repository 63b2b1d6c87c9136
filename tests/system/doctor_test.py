"""The doctor names what is there and what is missing, each with its remedy, on any machine and without root."""

import importlib.machinery
import importlib.util
import json
import mmap
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

import muster

DOCTOR = Path(__file__).resolve().parents[2] / "launch/doctor"

# As a host with two H200, linked, prints it.
TWO_GPUS = r"""#!/bin/sh
case "$*" in
  *driver_version*) echo "580.82.07"; echo "580.82.07" ;;
  *name,memory*) echo "NVIDIA H200, 143771 MiB, 9.0"; echo "NVIDIA H200, 143771 MiB, 9.0" ;;
  "topo -m") printf '\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV18\t0-15\nGPU1\tNV18\t X \t0-15\n' ;;
esac
"""
OLD_GPU = r"""#!/bin/sh
case "$*" in
  *driver_version*) echo "580.82.07" ;;
  *name,memory*) echo "Tesla V100-SXM2-16GB, 16384 MiB, 7.0" ;;
esac
"""
SILENT_DRIVER = """#!/bin/sh
echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
exit 9
"""


class Doctor(unittest.TestCase):
    def setUp(self):
        self.room = muster.Room("doctor")
        self.addCleanup(self.room.close)

    def program(self, name, text):
        """A folder for PATH with this program alone in it."""
        folder = self.room / "programs"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
        return str(folder)

    def module(self):
        loader = importlib.machinery.SourceFileLoader("doctor", str(DOCTOR))
        doctor = importlib.util.module_from_spec(importlib.util.spec_from_loader("doctor", loader))
        loader.exec_module(doctor)
        return doctor

    def examine(self, path=None, binary=None, wanted_set=None):
        environment = {**os.environ, "PATH": path or os.environ["PATH"], "MUSTER": binary or muster.BINARY}
        if wanted_set:
            environment["MUSTER_INSTRUCTION_SET"] = wanted_set
        return subprocess.run([sys.executable, str(DOCTOR)], env=environment, capture_output=True, text=True)

    def line(self, done, subject):
        found = re.search(rf"^(..)  {re.escape(subject)} .*(?:\n +-> .*)?", done.stdout, re.M)
        self.assertTrue(found, f"nothing about {subject}\n{done.stdout}{done.stderr}")
        return found[0]

    def test_where_the_program_is_built_training_can_run(self):
        done = self.examine()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stderr, "")
        self.assertIn("Training runs here, on ", done.stdout)
        for subject in ("cores", "instruction sets", "memory", "/dev/shm", "locked memory", "network", "MPI", "MPI and CUDA", "HDF5",
                        "muster", "driver", "CUDA toolkit", "cuBLAS", "cuDNN", "NCCL"):
            self.line(done, subject)

    def test_the_instruction_set_in_use_is_the_one_that_the_program_says(self):
        used = re.search(r"(\w+) is used", self.line(self.examine(), "instruction sets"))[1]
        data = muster.prepare(self.room / "data")
        config = self.room.config("little", f"[data]\npath = '{data}'\n[model]\nlayers = 1\nwidth = 32\nheads = 2\n"
                                  "[train]\nsteps = 1\nbatch = 8\nsequence = 16\n")
        done = muster.call("train", config, f"--run.dir={self.room / 'run'}", "--run.device=cpu")
        self.assertEqual(done.code, 0, done)
        self.assertIn(f"instruction set {used}, ", done.out)
        self.assertEqual(json.loads((self.room / "run/run.json").read_text())["instruction_set"], used)

    def test_the_processors_that_control_groups_grant_are_told(self):
        doctor = self.module()
        root, mine = self.room / "cgroup", self.room / "mine"

        def write(file, text):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(text)

        mine.write_text("4:cpu,cpuacct:/docker/id\n0::/pod/container\n")
        self.assertIsNone(doctor.cpu_quota(root, mine))
        write("pod/container/cpu.max", "max 100000\n")
        self.assertIsNone(doctor.cpu_quota(root, mine))
        write("cpu/docker/id/cpu.cfs_quota_us", "300000\n")
        write("cpu/docker/id/cpu.cfs_period_us", "100000\n")
        self.assertEqual(doctor.cpu_quota(root, mine), (3, str(root / "cpu/docker/id")))
        write("pod/cpu.max", "150000 100000\n")
        self.assertEqual(doctor.cpu_quota(root, mine), (1.5, str(root / "pod")))

    def test_what_a_killed_mpirun_left_is_told_from_what_is_in_use(self):
        user = os.getuid()
        names = [f"vader_segment.host.{user}.1c1c0001.{rank}" for rank in range(3)]
        for name in [*names, f"vader_segment.host.{user + 1}.1c1c0001.0", "other"]:
            (self.room / name).write_bytes(bytes(4096))
        with open(self.room / names[1], "rb") as file, mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ):
            self.assertEqual(self.module().left_segments(str(self.room.path)),
                             {str(self.room / names[0]): 4096, str(self.room / names[2]): 4096})

    def test_an_instruction_set_that_the_processor_lacks_is_named(self):
        done = self.examine(wanted_set="avx1024")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("unset MUSTER_INSTRUCTION_SET", self.line(done, "instruction sets"))

    def test_whatever_is_missing_has_its_remedy(self):
        for done in (self.examine(), self.examine(path=self.program("nvidia-smi", SILENT_DRIVER))):
            lines = done.stdout.splitlines()
            for line, below in zip(lines, lines[1:]):
                if line.startswith(("--", "!!")):
                    self.assertRegex(below, r"^ +-> \S", line)

    def test_without_the_program_it_says_how_to_build_it(self):
        done = self.examine(binary=str(self.room / "nowhere"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("./launch/build", self.line(done, "muster"))
        self.assertIn("Training cannot run here: see muster.", done.stdout)

    def test_a_program_that_does_not_start_is_not_enough(self):
        broken = self.program("muster", "#!/bin/sh\nexit 127\n") + "/muster"
        done = self.examine(binary=broken)
        self.assertEqual(done.returncode, 1)
        self.assertTrue(self.line(done, "muster").startswith("!!"))

    def test_without_mpi_training_cannot_run(self):
        done = self.examine(path=str(self.room / "empty"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("./launch/setup", self.line(done, "MPI"))

    def test_gpus_and_the_links_between_them_are_listed(self):
        done = self.examine(path=self.program("nvidia-smi", TWO_GPUS) + ":" + os.environ["PATH"])
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("580.82.07", self.line(done, "driver"))
        self.assertIn("NVIDIA H200, 143771 MiB, sm_90", self.line(done, "GPU 0"))
        self.assertIn("sm_90", self.line(done, "GPU 1"))
        self.assertIn("NV18", self.line(done, "NVLink"))

    def test_a_gpu_that_is_too_old_is_named_and_training_runs_on_cpus(self):
        done = self.examine(path=self.program("nvidia-smi", OLD_GPU) + ":" + os.environ["PATH"])
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertTrue(self.line(done, "GPU 0").startswith("--"))
        self.assertIn("Training runs here, on CPUs.", done.stdout)

    def test_a_driver_that_is_too_old_for_the_toolkit_is_named_and_training_runs_on_cpus(self):
        nvidia_smi = TWO_GPUS.replace("580.82.07", "535.183.01")
        self.assertNotEqual(nvidia_smi, TWO_GPUS)
        done = self.examine(path=self.program("nvidia-smi", nvidia_smi) + ":" + os.environ["PATH"])
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("580 or newer", self.line(done, "driver"))
        self.assertIn("Training runs here, on CPUs.", done.stdout)

    def test_a_driver_that_does_not_answer_is_told_from_none(self):
        done = self.examine(path=self.program("nvidia-smi", SILENT_DRIVER) + ":" + os.environ["PATH"])
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("finds none that answers", self.line(done, "driver"))


if __name__ == "__main__":
    unittest.main()
