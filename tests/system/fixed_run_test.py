"""A fixed run of 20 steps keeps its numbers: losses and final state are those stored in fixed_run.json, bit for bit.

For each instruction set of this processor, each family and precision. Whoever means to change numbers runs this with
--update, which computes the rows of these sets anew, and says so in the commit. Beside the kernels, the C library's pow,
log and cos take part: the rows were made with glibc 2.36.
"""

import hashlib
import json
import re
import subprocess
import sys
import unittest
from pathlib import Path

import muster

TABLE = Path(__file__).with_name("fixed_run.json")
UPDATE = "--update"
STEPS = 20

# No width or length fills the kernels' tiles, one sum is deeper than a block of any of them (1024), and the global norm is
# clipped.
CONFIG = """
[model]
layers = 2
width = 72
heads = 6
feed_forward = 1100

[train]
steps = {steps}
batch = 8
sequence = 50
shards = 4
micro_batch = 1
reduction = "invariant"

[data]
path = "{data}"
documents = true
document_start = "first_token"

[optimizer]
lr = 3e-3
clip = 0.6

[schedule]
warmup = 5

[checkpoint]
every = 0

[run]
device = "cpu"
threads = 2
"""

FAMILIES = {
    "gpt": {"model.family": "gpt", "model.dropout": 0.1},
    "llama": {"model.family": "llama", "model.kv_heads": 2, "model.qkv_bias": True, "model.tied": False},
    "bert": {"model.family": "bert", "model.dropout": 0.1},
}


def write_text(path, documents=300):
    """The same bytes in every version of Python: of words that a little generator of its own picks."""
    state = 1

    def below(count):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % count

    with open(path, "w") as out:
        for _ in range(documents):
            words = [muster.WORDS[below(len(muster.WORDS))] for _ in range(1 + below(40))]
            out.write(json.dumps({"text": " ".join(words)}) + "\n")


def short_hash(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class FixedRun(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.room = muster.Room("fixed-run")
        cls.addClassCleanup(cls.room.close)
        write_text(cls.room / "text.jsonl")
        done = muster.call("prepare", cls.room / "text.jsonl", "--output", cls.room / "data")
        assert done.code == 0, done
        cls.config = cls.room.config("fixed", CONFIG.format(steps=STEPS, data=cls.room / "data"))
        cls.table = json.loads(TABLE.read_text()) if TABLE.exists() else {}

    def call(self, instruction_set, *arguments):
        done = subprocess.run([muster.BINARY, *arguments], capture_output=True, text=True, errors="replace",
                              env={**muster.mpi_environment(), "MUSTER_INSTRUCTION_SET": instruction_set})
        return muster.Finished(done.returncode, done.stdout, done.stderr)

    def numbers(self, instruction_set, family, precision):
        run_dir = self.room / f"{instruction_set}-{family}-{precision}"
        settings = {**FAMILIES[family], "run.precision": precision, "run.dir": run_dir}
        done = self.call(instruction_set, "train", self.config, *muster.keys(settings))
        self.assertEqual(done.code, 0, done)
        self.assertIn(f"instruction set {instruction_set}", done.out)
        losses = re.findall(r'"loss":([^,}]+)', (run_dir / "metrics.jsonl").read_text())
        self.assertEqual(len(losses), STEPS)
        return {"losses": short_hash("\n".join(losses)), "last_loss": losses[-1],
                "state": muster.checkpoint_hash(run_dir, STEPS)}

    def all_numbers(self, instruction_set):
        return {f"{family} {precision}": self.numbers(instruction_set, family, precision)
                for family in FAMILIES for precision in ("f32", "bf16")}

    def test_numbers_are_the_stored_ones(self):
        for instruction_set in muster.instruction_sets():
            with self.subTest(instruction_set=instruction_set):
                wanted = self.table.get(instruction_set)
                if wanted is None:
                    print(f"skipped: no stored hash for {instruction_set}", flush=True)
                    self.skipTest(f"no stored hash for {instruction_set}")
                got = {run: numbers for run, numbers in self.all_numbers(instruction_set).items()
                       if run in wanted or print(f"skipped: no stored hash for {instruction_set}, {run}", flush=True)}
                changed = [f"{run}: {name} {wanted[run].get(name)} -> {got[run][name]}"
                           for run in got for name in got[run] if got[run][name] != wanted[run].get(name)]
                if changed:
                    self.fail(f"numbers changed with {instruction_set}; whoever meant it runs {Path(__file__).name} {UPDATE} "
                              "and says so in the commit\n  " + "\n  ".join(changed))


class Update(FixedRun):
    """In place of the test, with --update."""

    def test_numbers_are_the_stored_ones(self):
        sets = muster.instruction_sets()
        for instruction_set in sets:
            self.table[instruction_set] = self.all_numbers(instruction_set)
        TABLE.write_text(json.dumps(self.table, indent=1) + "\n")
        print(f"computed: {', '.join(sets)}; left as they were: {', '.join(self.table.keys() - set(sets)) or 'none'}")


def load_tests(loader, _tests, _pattern):
    return loader.loadTestsFromTestCase(Update if updating else FixedRun)


if __name__ == "__main__":
    updating = UPDATE in sys.argv
    unittest.main(argv=[argument for argument in sys.argv if argument != UPDATE])
