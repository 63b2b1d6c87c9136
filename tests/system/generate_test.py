"""What a trained model writes: text, from nothing too, by one rank, also beside the run that trains it."""

import json
import string
import sys
import unittest

import muster

CONFIG = """
[model]
layers = 1
width = 32
heads = 2

[data]
path = "{data}"

[train]
steps = {steps}
batch = 8
sequence = 32

[optimizer]
lr = 1e-2

[schedule]
warmup = 2

[run]
device = "cpu"
"""


class Generate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.room = muster.Room("generate")
        cls.addClassCleanup(cls.room.close)
        text = cls.room / "alphabet.jsonl"
        text.write_text("".join(json.dumps({"text": string.ascii_lowercase[:16]}) + "\n" for _ in range(60)))
        done = muster.call("prepare", text, "--output", cls.room / "alphabet", "--validation", "0")
        assert done.code == 0, done
        cls.config = cls.room.config("alphabet", CONFIG.format(data=cls.room / "alphabet", steps=150))
        cls.runs = {}
        for documents in (False, True):
            cls.runs[documents] = cls.room / f"run-{documents}"
            done = muster.call("train", cls.config, f"--run.dir={cls.runs[documents]}",
                               *muster.keys({"data.documents": documents}))
            assert done.code == 0, done
            cls.told = done.out

    def test_a_model_writes_from_nothing_whether_documents_were_apart_or_not(self):
        for documents, run in self.runs.items():
            with self.subTest(documents=documents):
                done = muster.call("generate", run, "--tokens", 40, "--temperature", 0)
                self.assertEqual(done.code, 0, done)
                self.assertEqual(done.out, string.ascii_lowercase[:16] + "\n")

    def test_documents_that_began_with_their_first_token_are_gone_on_with_and_want_a_prompt(self):
        run = self.room / "before"
        keys = {"data.documents": True, "data.document_start": "first_token"}
        self.assertEqual(muster.call("train", self.config, f"--run.dir={run}", *muster.keys(keys)).code, 0)
        written = (run / "config.toml").read_text()
        older = written.replace('document_start = "first_token"\n', "")  # as before the key
        self.assertNotEqual(written, older)
        (run / "config.toml").write_text(older)
        done = muster.call("generate", run, "--tokens", 40, "--temperature", 0)
        self.assertEqual(done.code, muster.USER_ERROR, done)
        self.assertIn("--prompt", done.err)
        done = muster.call("generate", run, "--prompt", "abc", "--tokens", 40, "--temperature", 0)
        self.assertEqual(done.out, string.ascii_lowercase[:16] + "\n", done)
        done = muster.call("train", run, "--train.steps=151")
        self.assertEqual(done.code, 0, done)
        self.assertIn('document_start = "first_token"', (run / "config.toml").read_text())

    def test_under_a_launcher_one_rank_writes(self):
        alone = muster.call("generate", self.runs[True], "--tokens", 8, "--seed", 3)
        done = muster.run(2, ["generate", self.runs[True], "--tokens", 8, "--seed", 3])
        self.assertEqual(done.code, 0, done)
        self.assertEqual(done.out, alone.out)
        self.assertIn("muster generate runs on one rank", done.err)

    def test_the_start_tells_what_becomes_of_documents(self):
        self.assertRegex(self.told, r"data: \d+ of 60 \([\d.]+%\) documents are cut where a sample ends; 0 are longer")

    def test_text_of_end_tokens_alone_is_refused_at_the_start(self):
        (self.room / "ends.bin").write_bytes(b"\x07\x00" * 2000)
        done = muster.call("prepare", self.room / "ends.bin", "--output", self.room / "ends", "--vocabulary", 100,
                           "--end-token", 7, "--token-type", "u16", "--validation", "0.2")
        self.assertEqual(done.code, 0, done)
        done = muster.call("train", self.config, f"--run.dir={self.room / 'run-ends'}", f"--data.path={self.room / 'ends'}",
                           "--data.documents=true")
        self.assertEqual(done.code, muster.USER_ERROR, done)
        self.assertIn("is a single token", done.err)
        self.assertFalse((self.room / "run-ends").exists())

    def test_a_reader_beside_a_run_that_keeps_one_checkpoint_finds_one(self):
        run = self.room / "live"
        settings = {"train.steps": 1_000_000, "checkpoint.every": 2, "checkpoint.keep": 1, "train.sequence": 8}
        training = muster.start(1, ["train", self.config, f"--run.dir={run}", *muster.keys(settings)])
        self.addCleanup(muster.end, training)
        muster.wait_until(lambda: muster.complete_steps(run), 60, "a checkpoint")
        for _ in range(12):
            done = muster.call("generate", run, "--tokens", 2)
            self.assertEqual(done.code, 0, done)
            self.assertIsNone(training.poll())


if __name__ == "__main__":
    unittest.main(argv=sys.argv)
