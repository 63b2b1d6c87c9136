"""configs/tiny.toml on GPUs: the losses of the CPU, the same bits on 1, 2 and 4 ranks, over NCCL and on a shared GPU,
and a run that moves between GPUs and CPUs.

Without a GPU it runs on the stand-in that a build with MUSTER_CUDA=host is linked with.
"""

import json
import os
import re
import unittest
from pathlib import Path

import muster

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.toml"
STEPS = 20
# Four samples a step, and no long evaluations: every thread of every kernel is a fiber here.
SETTINGS = {"train.steps": STEPS, "train.batch": 4, "train.shards": 4, "train.sequence": 24, "train.reduction": "invariant",
            "model.dropout": 0.1, "eval.every": 20, "eval.windows": 8, "checkpoint.every": 0, "run.threads": 1}


class Cuda(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.room = muster.Room("cuda")
        cls.addClassCleanup(cls.room.close)
        cls.data = muster.prepare(cls.room / "data", documents=600)
        cls.runs = 0

    def start(self, device, ranks, gpus=4, folder=None, **settings):
        os.environ["CUDA_ON_HOST_DEVICES"] = str(gpus)  # of the stand-in
        type(self).runs += 1
        folder = folder or str(self.room / f"run-{self.runs}")
        arguments = ["train", str(CONFIG), f"--data.path={self.data}", f"--run.device={device}",
                     f"--run.dir={folder}", *settings.pop("options", []), *muster.keys({**SETTINGS, **settings})]
        return folder, muster.run(ranks, arguments)

    def train(self, device, ranks, gpus=4, folder=None, **settings):
        folder, done = self.start(device, ranks, gpus, folder, **settings)
        self.assertEqual(done.code, 0, done)
        return folder

    def losses(self, folder):
        return [record["loss"] for record in muster.metrics(folder)]

    def test_cpu_and_gpu_agree_on_twenty_losses(self):
        expected = self.losses(self.train("cpu", 1))
        hashes = set()
        for ranks, gpus in ((1, 1), (2, 2), (4, 4), (2, 1)):
            with self.subTest(ranks=ranks, gpus=gpus):
                folder = self.train("cuda", ranks, gpus)
                losses = self.losses(folder)
                self.assertEqual(len(losses), STEPS)
                for loss, wanted in zip(losses, expected):
                    self.assertLessEqual(abs(loss - wanted), 1e-5 * wanted)
                hashes.add(muster.checkpoint_hash(folder, STEPS))
                if ranks > 1:
                    log = (Path(folder) / "log" / "rank-0.log").read_text()
                    self.assertEqual("joined by NCCL" in log, gpus == ranks)
        self.assertEqual(len(hashes), 1, "other bits on other numbers of ranks")

    def test_fast_mode_sums_by_nccl(self):
        fast = {"train.reduction": "fast", "train.steps": 2}
        one, four = (self.losses(self.train("cuda", ranks, **fast)) for ranks in (1, 4))
        self.assertLessEqual(abs(one[0] - four[0]), 1e-6 * one[0])

    def test_a_run_moves_from_gpus_to_cpus_and_back(self):
        def steps(count):
            return {"train.steps": count, "checkpoint.every": 2, "schedule.kind": "constant"}

        folder = self.train("cuda", 2, **steps(6))
        self.train("cpu", 3, folder=folder, **steps(8))
        self.train("cuda", 1, folder=folder, **steps(10))
        whole = self.losses(self.train("cpu", 1, **steps(10)))
        for loss, wanted in zip(self.losses(folder), whole, strict=True):
            self.assertLessEqual(abs(loss - wanted), 1e-5 * wanted)

    def test_a_trace_tells_of_kernels_and_collectives(self):
        folder = self.train("cuda", 2, options=["--trace", "step=3"], **{"train.steps": 4, "model.dropout": 0, "run.precision": "bf16"})
        for rank in (0, 1):
            trace = json.loads((Path(folder) / f"trace-step-3-rank-{rank}.json").read_text())
            names = {event["name"] for event in trace["traceEvents"] if event["ph"] == "X"}
            self.assertTrue(any("attention" in name for name in names), names)
            self.assertTrue(any("reduction of gradients" in name for name in names), names)

    def test_a_plan_leaves_the_libraries_of_a_gpu_their_memory(self):
        self.addCleanup(os.environ.pop, "CUDA_ON_HOST_MEMORY_MB")
        os.environ["CUDA_ON_HOST_MEMORY_MB"] = "700"  # 640 of them for the libraries of a rank, 1152 with NCCL
        folder = self.train("cuda", 1, **{"train.steps": 1})
        if "CUDA on host" not in (Path(folder) / "run.json").read_text():
            self.skipTest("a GPU has more memory than its libraries take")
        _, refused = self.start("cuda", 2, **{"train.steps": 1})
        self.assertEqual(refused.code, muster.USER_ERROR, refused)
        self.assertRegex(refused.err, r"the plan and the libraries need 1\.\d+ GiB a rank, .* has [\d.]+ MiB left")

    def test_counts_the_bytes_that_the_plan_knew(self):
        log = (Path(self.train("cuda", 2, **{"train.steps": 2})) / "log" / "rank-0.log").read_text()
        sent, planned = map(int, re.search(r"sent (\d+) bytes in a step, planned (\d+)", log).groups())
        self.assertEqual(sent, planned)


if __name__ == "__main__":
    unittest.main(verbosity=2)
