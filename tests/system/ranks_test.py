"""The number of ranks is an execution detail: the same bits on any number of ranks and threads.

One small model a family, with everything that could depend on ranks switched on: dropout, clipping, documents
apart, targets ignored in unequal numbers.
"""

import os
import re
import subprocess
import unittest
from pathlib import Path

import muster

STEPS = 50
CLIP = 0.6

CONFIG = """
[model]
layers = 2
width = 64
heads = 4
dropout = 0.1

[train]
steps = {steps}
batch = 16
sequence = 32
shards = 8
micro_batch = 1
reduction = "invariant"

[data]
path = "{data}"
documents = true
document_start = "first_token"  # so that borders ignore targets, some steps more than others

[optimizer]
lr = 3e-3
clip = {clip}

[schedule]
warmup = 5

[checkpoint]
every = 0

[eval]
every = {steps}
"""

FAMILIES = {
    "gpt": {"model.family": "gpt"},
    "llama": {"model.family": "llama", "model.kv_heads": 2, "model.tied": False, "model.qkv_bias": True},
    "bert": {"model.family": "bert"},
}


class Ranks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.room = muster.Room("ranks")
        cls.addClassCleanup(cls.room.close)
        cls.data = muster.prepare(cls.room / "data")
        cls.config = cls.room.config("ranks", CONFIG.format(steps=STEPS, data=cls.data, clip=CLIP))
        cls.runs = 0

    def train(self, ranks, settings):
        """Folder and metrics of a finished run."""
        type(self).runs += 1
        folder = self.room / f"run-{self.runs}"
        done = muster.train(self.config, folder, ranks, {"run.threads": 1, **settings})
        self.assertEqual(done.code, 0, done)
        return folder, muster.metrics(folder)

    def result(self, ranks, settings):
        """What must not depend on ranks: the state's hash, all losses and norms, the evaluation."""
        folder, records = self.train(ranks, settings)
        self.assertEqual([r["step"] for r in records], list(range(1, len(records) + 1)))
        told = [(r["loss"], r["grad_norm"], r["targets"], r.get("eval_loss")) for r in records]
        return muster.checkpoint_hash(folder, len(records)), told

    def assert_same_on_all(self, settings, executions):
        wanted = self.result(1, settings)
        told = wanted[1]
        self.assertEqual(len(told), STEPS)
        self.assertIsNotNone(told[-1][3], "the last step was evaluated")
        self.assertGreaterEqual(sum(norm > CLIP for _, norm, _, _ in told), 10, "clipping was active too seldom")
        counts = {targets for _, _, targets, _ in told}
        self.assertGreater(len(counts), 1, "every step ignored as many targets")
        self.assertLess(max(counts), 16 * 32, "no target was ignored")
        for ranks, threads in executions:
            with self.subTest(ranks=ranks, threads=threads):
                self.assertEqual(self.result(ranks, {**settings, "run.threads": threads}), wanted)
        return wanted

    def test_gpt_in_f32_has_the_same_bits_on_any_ranks_and_threads(self):
        self.assert_same_on_all({**FAMILIES["gpt"], "run.precision": "f32"}, [(2, 1), (3, 2), (4, 1), (8, 1), (1, 4)])

    def test_gpt_in_bf16_has_the_same_bits_on_any_ranks_and_threads(self):
        self.assert_same_on_all({**FAMILIES["gpt"], "run.precision": "bf16"}, [(2, 3), (3, 1), (4, 1), (8, 1), (1, 2)])

    def test_llama_in_f32_has_the_same_bits_on_any_ranks_and_threads(self):
        self.assert_same_on_all({**FAMILIES["llama"], "run.precision": "f32"},
                                [(2, 2), (3, 1), (4, 1), (8, 1), (1, 3)])

    def test_llama_in_bf16_has_the_same_bits_on_any_ranks_and_threads(self):
        self.assert_same_on_all({**FAMILIES["llama"], "run.precision": "bf16"},
                                [(2, 4), (3, 1), (4, 1), (8, 1), (1, 2)])

    def test_bert_has_the_same_bits_on_any_ranks_and_threads(self):
        self.assert_same_on_all({**FAMILIES["bert"], "run.precision": "f32"}, [(2, 2), (3, 1), (8, 1)])
        self.assert_same_on_all({**FAMILIES["bert"], "run.precision": "bf16"}, [(4, 1), (1, 2)])

    def test_neither_sharding_nor_recomputing_changes_a_bit(self):
        settings = {**FAMILIES["llama"], "train.steps": 10, "eval.every": 10}
        wanted = self.result(2, settings)
        for key, value in [("train.sharding", 0), ("train.recompute", "norms"), ("train.recompute", "block")]:
            with self.subTest(key=key, value=value):
                self.assertEqual(self.result(2, {**settings, key: value}), wanted)

    def test_gradients_of_several_buckets_have_the_same_bits(self):
        # 7.9 million parameters: more than one bucket of 6.6 million.
        settings = {"model.width": 512, "model.heads": 8, "model.layers": 2, "model.vocabulary": 3000,
                    "train.batch": 8, "train.steps": 3, "eval.every": 0}
        wanted = self.result(1, settings)
        for ranks in (2, 3):
            with self.subTest(ranks=ranks):
                self.assertEqual(self.result(ranks, settings), wanted)

    def test_fast_reduction_agrees_at_the_first_step(self):
        # f32 sums in another order: 16 x 32 losses and products of at most 256 terms, far below 1e-6.
        settings = {"train.reduction": "fast", "train.steps": 1, "eval.every": 0}
        wanted = self.train(1, settings)[1][0]["loss"]
        for ranks in (2, 3, 4, 5, 8):
            with self.subTest(ranks=ranks):
                loss = self.train(ranks, settings)[1][0]["loss"]
                self.assertLessEqual(abs(loss - wanted), 1e-6 * wanted)

    def test_a_fast_run_goes_on_with_ranks_that_do_not_divide_its_batch(self):
        settings = {"train.reduction": "fast", "train.micro_batch": 0, "train.batch": 24, "eval.every": 0,
                    "schedule.kind": "constant"}
        whole = [r["loss"] for r in self.train(1, {**settings, "train.steps": 12})[1]]
        folder, _ = self.train(2, {**settings, "train.steps": 4})
        # As the README tells: the folder alone names the run. What the run was told may change with the ranks.
        for ranks, more, steps in [(3, {}, 8), (5, {"train.micro_batch": 2}, 12)]:
            done = muster.run(ranks, ["train", folder, *muster.keys({"train.steps": steps, **more})])
            self.assertEqual(done.code, 0, done)
        losses = [r["loss"] for r in muster.metrics(folder)]
        self.assertEqual(len(losses), 12)
        for mine, wanted in zip(losses, whole):
            self.assertLess(abs(mine - wanted), 1e-3 * wanted)

    def test_processes_of_another_mpis_launcher_are_refused_before_anything_is_written(self):
        folder = self.room / "foreign"
        environments = [{"PMI_RANK": rank, "PMI_SIZE": "2"} for rank in "01"]
        environments += [{"SLURM_PROCID": rank, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"} for rank in "01"]
        complaints = []
        for environment in environments:
            done = subprocess.run([muster.BINARY, "train", self.config, f"--run.dir={folder}"], capture_output=True,
                                  text=True, errors="replace", env={**muster.mpi_environment(), **environment})
            self.assertEqual(done.returncode, muster.USER_ERROR, done)
            complaints += muster.Finished(done.returncode, done.stdout, done.stderr).complaints()
        self.assertEqual(len(complaints), 2, "the first process of each launcher speaks")
        self.assertIn("PMI_SIZE", complaints[0])
        self.assertIn("--mpi=pmix", complaints[1])
        self.assertFalse(folder.exists())

    def test_ranks_with_unlike_instruction_sets_are_refused_with_the_remedy(self):
        least = "sse2" if os.uname().machine == "x86_64" else "neon"
        options = ["train", self.config, f"--run.dir={self.room / 'unlike'}", "--run.device=cpu"]
        command = ["mpirun", "--bind-to", "none", "-n", "1", muster.BINARY, *options,
                   ":", "-n", "1", "-x", f"MUSTER_INSTRUCTION_SET={least}", muster.BINARY, *options]
        done = subprocess.run(command, env=muster.mpi_environment(), capture_output=True, text=True, errors="replace")
        done = muster.Finished(done.returncode, done.stdout, done.stderr)
        if f"instruction set {least}, " in done.out:
            self.skipTest(f"this processor has nothing but {least}")
        self.assertEqual(done.code, muster.USER_ERROR, done)
        self.assertEqual(len(done.complaints()), 1, done)
        for named in ("rank 1", f"; {least} (", "MUSTER_INSTRUCTION_SET"):
            self.assertIn(named, done.complaints()[0])

    def test_each_rank_sends_what_the_plan_says(self):
        # The trainer itself ends as a defect where it sends more; here the figures of the log are read.
        for ranks, reduction in [(2, "invariant"), (3, "invariant"), (8, "invariant"), (3, "fast"), (5, "fast")]:
            for sharding in (0, 1):
                settings = {"train.steps": 2, "eval.every": 0, "train.sharding": sharding,
                            "train.reduction": reduction}
                folder, _ = self.train(ranks, settings)
                for rank in range(ranks):
                    with self.subTest(ranks=ranks, reduction=reduction, sharding=sharding, rank=rank):
                        log = (Path(folder) / "log" / f"rank-{rank}.log").read_text()
                        sent, planned = map(int, re.search(r"sent (\d+) bytes in a step, planned (\d+)",
                                                           log).groups())
                        self.assertEqual(sent, planned)
                        if rank == 0:
                            told = muster.plan(self.config, ranks, settings)
                            self.assertEqual(planned, told["communication"]["bytes_sent_per_step"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
