"""What a command prints is its result: where it cannot be printed, the command has failed, and says so."""

import os
import signal
import subprocess
import unittest

import muster

CONFIG = """
[model]
layers = 1
width = 32
heads = 2

[train]
steps = 2
batch = 8
sequence = 32

[data]
path = "{data}"

[run]
threads = 1
"""


class Output(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.room = muster.Room("output")
        cls.addClassCleanup(cls.room.close)
        cls.config = cls.room.config("output", CONFIG.format(data=muster.prepare(cls.room / "data")))
        cls.run_dir = cls.room / "run"
        assert muster.train(cls.config, cls.run_dir, 1, {}).code == 0
        text = cls.room / "text.txt"
        text.write_text("some words\n" * 500)
        cls.commands = [["--help"], ["plan", cls.config, "--json"], ["eval", cls.run_dir],
                        ["generate", cls.run_dir, "--prompt", "the ", "--tokens", "5"],
                        ["checkpoint", "verify", cls.run_dir], ["checkpoint", "list", cls.run_dir],
                        ["prepare", text, "--output", cls.room / "made"]]

    def failing(self, arguments, **options):
        done = subprocess.run([muster.BINARY, *map(str, arguments)], stderr=subprocess.PIPE, text=True, timeout=120,
                              **options)
        return muster.Finished(done.returncode, "", done.stderr)

    def each(self, **options):
        for arguments in self.commands:
            with self.subTest(arguments[0]):
                subprocess.run(["rm", "-rf", self.room / "made"], check=True)
                yield self.failing(arguments, **options)

    def test_a_full_disk_is_told(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full here")
        with open("/dev/full", "w") as full:
            for told in self.each(stdout=full):
                self.assertEqual(told.code, muster.USER_ERROR, told)
                self.assertEqual(len(told.complaints()), 1, told)
                self.assertIn("the output is not complete", told.complaints()[0])

    def test_a_closed_output_is_told_and_no_file_gets_what_was_meant_for_it(self):
        for told in self.each(preexec_fn=lambda: os.close(1)):
            self.assertEqual(told.code, muster.USER_ERROR, told)
            self.assertIn("the output is not complete", told.complaints()[0])
        closed = self.room / "closed"
        told = self.failing(["train", self.config, f"--run.dir={closed}"], preexec_fn=lambda: os.close(1))
        self.assertEqual(told.code, 0, told)
        self.assertEqual([record["step"] for record in muster.metrics(closed)], [1, 2])

    def test_a_pipe_that_nobody_reads_ends_a_command_quietly(self):
        def run_into_closed_pipe(ignored):
            reads, writes = os.pipe()
            os.close(reads)
            with os.fdopen(writes, "w") as pipe:
                yield from self.each(stdout=pipe, preexec_fn=lambda: signal.signal(
                    signal.SIGPIPE, signal.SIG_IGN if ignored else signal.SIG_DFL))

        for ignored in (False, True):
            for told in run_into_closed_pipe(ignored):
                self.assertEqual(told.code, -signal.SIGPIPE, told)
                self.assertEqual(told.complaints(), [])

    def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(self):
        pipe = self.room / "pipe.toml"
        os.mkfifo(pipe)
        copy = self.room / "copy"
        assert muster.train(self.config, copy, 1, {}).code == 0
        for file in ("metrics.jsonl", "log/rank-0.log"):
            os.remove(copy / file)
            os.mkfifo(copy / file)
            told = self.failing(["train", copy])
            self.assertEqual(told.code, muster.USER_ERROR, told)
            self.assertIn(file, told.complaints()[0])
            os.remove(copy / file)
        for arguments in (["train", pipe], ["plan", pipe], ["prepare", pipe, "--output", self.room / "none"]):
            told = self.failing(arguments, stdout=subprocess.DEVNULL)
            self.assertEqual(told.code, muster.USER_ERROR, told)
            self.assertIn(str(pipe), told.complaints()[0])


if __name__ == "__main__":
    unittest.main(verbosity=2)
