"""docs/formats.md is true: its Python reads every checkpoint, whichever ranks wrote it."""

import json
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import numpy

import muster

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/formats.md").read_text()


def example(text):
    """The block of Python that holds `text`."""
    return next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if text in block)


class Formats(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.folder = Path(cls.scratch.name)
        cls.data = muster.prepare(cls.folder / "data")
        cls.settings = {"train.steps": 2, "train.reduction": "invariant", "train.shards": 4, "train.batch": 8, "train.sequence": 32,
                        "data.path": cls.data, "eval.every": 2, "run.threads": 1, "run.device": "cpu"}

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def train(self, ranks):
        run = self.folder / f"run-{ranks}"
        subprocess.run(muster.command(ranks, ["train", ROOT / "configs/tiny.toml", *muster.keys({**self.settings, "run.dir": run})]),
                       env=muster.mpi_environment(), check=True, stdout=subprocess.DEVNULL)
        return run

    def test_the_reader_of_checkpoints_gives_every_tensor_of_any_number_of_ranks(self):
        names = {}
        exec(example("def tensors"), names)
        runs = [names["tensors"](self.train(ranks) / "checkpoints/step-00000002") for ranks in (1, 3)]
        self.assertEqual(runs[0].keys(), runs[1].keys())
        for name, values in runs[0].items():
            numpy.testing.assert_array_equal(values, runs[1][name], name)
        weights = {name: values for name, values in runs[0].items() if name.startswith("master/")}
        self.assertEqual(len(runs[0]), 3 * len(weights))
        plan = subprocess.run([muster.BINARY, "plan", ROOT / "configs/tiny.toml", "--json", *muster.keys(self.settings)],
                              check=True, stdout=subprocess.PIPE, text=True).stdout
        self.assertEqual(sum(values.size for values in weights.values()), json.loads(plan)["parameters"])
        self.assertEqual(weights["master/block.0.attention.qkv.weight"].shape[0],
                         3 * weights["master/block.0.attention.qkv.weight"].shape[1])

    def test_the_table_of_metrics_names_every_field(self):
        lines = (self.train(2) / "metrics.jsonl").read_text().splitlines()
        table = PAGE.split("## metrics.jsonl")[1].split("##")[0]
        told = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
        self.assertEqual({field for line in lines for field in json.loads(line)}, told)

    def test_the_reader_of_shards_gives_a_document(self):
        names = {}
        exec(example("document_ends").replace("data/notes", self.data), names)
        documents = [json.loads(line)["text"] for line in open(self.data + ".jsonl")]
        self.assertIn(bytes(names["first"][:-1].astype(numpy.uint8)).decode(), documents)


if __name__ == "__main__":
    unittest.main()
