"""What earlier versions wrote still loads and goes on to the bits that they would have reached.

tests/system/fixtures/format-N holds a dataset and a run of 6 steps on 2 ranks (`muster prepare`, `muster train`) as the first
version of format N wrote them; they are never written anew. The numbers below are those of that version, too: made with glibc
2.36, as those of fixed_run.json.
"""

import json
import shutil
import subprocess
import unittest
from pathlib import Path

import muster

FIXTURES = Path(__file__).with_name("fixtures")
SAVED_STATE = "0417a6728b1927a2"
# After 12 steps, by instruction set: the state, and the last line's losses.
CONTINUED = {
    "sse2": ("2a29c481a298350c", 5.217703713671704, 5.201980326963102),
    "avx2": ("6f85460b01d7259f", 5.217703712744038, 5.2019803199336465),
    "avx512": ("fcb1a820e4ba5a33", 5.2177037212377275, 5.201980330469791),
    "avx512_bf16": ("fcb1a820e4ba5a33", 5.2177037212377275, 5.201980330469791),
}


class Format1(unittest.TestCase):
    def setUp(self):
        self.room = muster.Room("stored-formats")
        self.addCleanup(self.room.close)
        for name in ("data", "run"):
            shutil.copytree(FIXTURES / "format-1" / name, self.room / name)
        self.data, self.run_dir = self.room / "data", self.room / "run"

    def call(self, instruction_set, ranks, *arguments):
        done = subprocess.run(muster.command(ranks, arguments), capture_output=True, text=True, errors="replace",
                              env={**muster.mpi_environment(), "MUSTER_INSTRUCTION_SET": instruction_set})
        done = muster.Finished(done.returncode, done.stdout, done.stderr)
        self.assertEqual(done.code, 0, done)
        return done

    def test_a_checkpoint_holds_the_bits_that_were_saved(self):
        self.assertEqual(muster.checkpoint_hash(self.run_dir, 6), SAVED_STATE)

    def test_a_run_goes_on_to_the_bits_that_its_own_version_reached(self):
        for instruction_set in muster.instruction_sets():
            if instruction_set not in CONTINUED:
                print(f"skipped: no stored numbers for {instruction_set}", flush=True)
                continue
            with self.subTest(instruction_set=instruction_set):
                run_dir = self.room / f"run-{instruction_set}"
                shutil.copytree(self.run_dir, run_dir)
                done = self.call(instruction_set, 3, "train", run_dir, f"--data.path={self.data}", "--train.steps=12")
                self.assertIn("resuming from", done.out)
                last = muster.metrics(run_dir)[-1]
                self.assertEqual((muster.checkpoint_hash(run_dir, 12), last["loss"], last["eval_loss"]),
                                 CONTINUED[instruction_set])
                self.assertEqual([line["step"] for line in muster.metrics(run_dir)], list(range(1, 13)))

    def test_it_is_evaluated_and_writes(self):
        arguments = (self.run_dir, f"--data.path={self.data}", "--checkpoint", "6")
        done = muster.call("eval", *arguments)
        self.assertIn("loss             5.328352", done.out, done)
        done = muster.call("generate", self.run_dir, "--prompt", "the", "--tokens", "3")
        self.assertEqual(done.code, 0, done)


if __name__ == "__main__":
    unittest.main()
