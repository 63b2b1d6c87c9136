"""Bad input never crashes: one line that names the file or key and the remedy, exit code 2, nobody left behind.

A fault that only one rank sees is made by giving the ranks different folders of data, one of them damaged.
"""

import json
import os
import shutil
import subprocess
import threading
import time
import unittest
from pathlib import Path

import muster

CONFIG = """
[model]
layers = 2
width = 64
heads = 4

[train]
steps = 4
batch = 8
sequence = 32
reduction = "invariant"

[data]
path = "{data}"

[run]
threads = 1

[checkpoint]
every = 2
"""

# Promised are 5 seconds; a busy machine is given more.
GONE_WITHIN = 15


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.room = muster.Room("bad-input")
        cls.addClassCleanup(cls.room.close)
        cls.data = muster.prepare(cls.room / "data")
        cls.config = cls.room.config("run", CONFIG.format(data=cls.data))

    def copy_of_data(self):
        return Path(shutil.copytree(self.data, self.room.new("data")))

    @staticmethod
    def train_shard(data):
        name = json.loads((Path(data) / "dataset.json").read_text())["splits"]["train"]["shards"][0]["file"]
        return Path(data) / name

    def refused(self, parts, *expected, during=None):
        """mpirun of `parts`, (ranks, arguments) each, ends with one line that holds all of `expected`."""
        line = ["mpirun", "--bind-to", "none"]
        for i, (ranks, arguments) in enumerate(parts):
            line += ([":"] if i else []) + ["-n", str(ranks), os.path.abspath(muster.BINARY), *map(str, arguments)]
        process = subprocess.Popen(line, env=muster.mpi_environment(), start_new_session=True, cwd=self.room.path,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, errors="replace")
        self.addCleanup(muster.end, process)
        out, err, complained = [], [], []

        def read_errors():
            for text in process.stderr:
                err.append(text)
                if text.startswith("muster:"):
                    complained.append(time.monotonic())

        readers = [threading.Thread(target=lambda: out.extend(process.stdout)), threading.Thread(target=read_errors)]
        for reader in readers:
            reader.start()
        if during:
            during(process)
        process.wait(timeout=300)
        muster.wait_until(lambda: not muster.ranks_of(process), 60, "the ranks to end")
        gone = time.monotonic()
        for reader in readers:
            reader.join()
        told = muster.Finished(process.returncode, "".join(out), "".join(err))
        complaints = told.complaints()
        self.assertEqual(len(complaints), 1, told)
        for part in expected:
            self.assertIn(part, complaints[0])
        self.assertEqual(told.code, muster.USER_ERROR, told)
        self.assertNotIn("signal", told.err.replace("signals", ""), "nobody crashed")
        self.assertLess(gone - complained[0], GONE_WITHIN)
        self.assertEqual(list(self.room.path.glob("core*")), [])
        return complaints[0]

    def train_refused(self, settings, *expected, ranks=2, run_dir=None, during=None, other=None):
        """`other`: settings of one more rank, the last."""

        def arguments(more):
            return ["train", self.config, f"--run.dir={folder}", *muster.keys({**settings, **more})]

        folder = run_dir or self.room.new("run")
        parts = [(ranks, arguments({}))] + ([(1, arguments(other))] if other else [])
        self.refused(parts, *expected, during=during)
        return folder

    def refused_by_all_and_by_one(self, data, *expected):
        self.train_refused({"data.path": data}, *expected)
        self.train_refused({}, *expected, ranks=2, other={"data.path": data})

    # Data

    def test_a_missing_shard(self):
        data = self.copy_of_data()
        self.train_shard(data).unlink()
        self.refused_by_all_and_by_one(data, str(self.train_shard(data)), "is missing", "restore it or prepare")

    def test_a_truncated_shard(self):
        data = self.copy_of_data()
        os.truncate(self.train_shard(data), 1000)
        self.refused_by_all_and_by_one(data, str(self.train_shard(data)), "has 1000 bytes", "restore it or prepare")

    def test_an_empty_shard(self):
        data = self.copy_of_data()
        os.truncate(self.train_shard(data), 0)
        self.refused_by_all_and_by_one(data, str(self.train_shard(data)), "has 0 bytes", "restore it or prepare")

    def test_a_folder_in_place_of_a_shard(self):
        data = self.copy_of_data()
        self.train_shard(data).unlink()
        self.train_shard(data).mkdir()
        self.refused_by_all_and_by_one(data, str(self.train_shard(data)))

    def test_a_shard_truncated_under_one_rank_while_it_trains(self):
        data = self.copy_of_data()
        folder = self.room.new("run")

        def truncate(process):
            muster.wait_until(lambda: len(muster.metrics(folder)) >= 3, 120, "three steps")
            os.truncate(self.train_shard(data), 4096)

        self.train_refused({"train.steps": 1000000, "checkpoint.every": 0}, str(self.train_shard(data)), ":",
                           run_dir=folder, during=truncate, other={"data.path": data})
        self.assertEqual(muster.complete_steps(folder), [])

    def test_a_shard_whose_checksum_does_not_match(self):
        data = self.copy_of_data()
        shard = self.train_shard(data)
        contents = bytearray(shard.read_bytes())
        contents[len(contents) // 2] ^= 1
        shard.write_bytes(contents)
        self.refused_by_all_and_by_one(data, str(shard), "checksum", "restore it or prepare")

    def test_a_token_outside_of_the_vocabulary(self):
        data = self.copy_of_data()
        shard = self.train_shard(data)
        contents = shard.read_bytes()
        the = b"t\0h\0e\0"
        self.assertIn(the, contents)
        shard.write_bytes(contents.replace(the, b"\xff\xff" + the[2:]))
        settings = {"data.verify": "size"}
        self.train_refused({**settings, "data.path": data}, "token 65535", str(shard), "restore the file")
        self.train_refused(settings, "token 65535", str(shard), other={"data.path": data})

    def test_a_vocabulary_larger_than_the_models(self):
        self.train_refused({"model.vocabulary": 100}, self.data, "raise model.vocabulary to 257")

    def test_an_empty_description_of_a_dataset(self):
        data = self.copy_of_data()
        os.truncate(data / "dataset.json", 0)
        self.refused_by_all_and_by_one(data, str(data / "dataset.json"), "restore it or prepare")

    def test_empty_text_to_prepare(self):
        source = self.room.new("empty").with_suffix(".txt")
        source.write_text("")
        output = self.room.new("data")
        self.refused([(1, ["prepare", source, "--output", output])], str(source), "is empty", "leave it out")
        self.assertFalse(output.exists())

    def refused_to_prepare(self, name, contents, *expected, options=()):
        source = self.room.new("source").with_name(name)
        source.write_text(contents)
        output = self.room.new("data")
        self.refused([(1, ["prepare", source, "--output", output, *options])], *expected)
        self.assertFalse(output.exists())

    def test_a_json_array_to_prepare(self):
        self.refused_to_prepare("array.json", '[{"text": "a"}, {"text": "b"}]', "array.json is a JSON array", "jq -c '.[]'")

    def test_a_line_without_a_text_to_prepare(self):
        self.refused_to_prepare("lines.ndjson", '{"text": "a"}\n{"text": null}\n', "lines.ndjson:2", "no string",
                                "--skip-bad-lines")

    def test_a_share_and_files_to_hold_out(self):
        self.refused_to_prepare("a.txt", "text", "--validation", "excludes",
                                options=["--validation", 0.5, "--validation-input", self.data + ".jsonl"])

    # Configuration

    def test_a_batch_that_the_shards_do_not_divide(self):
        self.train_refused({"train.batch": 12}, "train.batch", "train.shards")

    def test_more_ranks_than_shards(self):
        self.train_refused({"train.shards": 2}, "train.shards = 2", "fewer ranks", ranks=3)

    def test_a_model_that_cannot_fit_the_memory(self):
        self.train_refused({"model.width": 32768, "model.heads": 256, "model.layers": 100}, "this host leaves",
                           "no setting suffices", "smaller model")

    def test_an_unknown_key(self):
        self.train_refused({"train.step": 3}, "train.step", "did you mean train.steps?")

    def test_a_path_that_the_files_of_a_run_cannot_hold(self):
        path = os.fsdecode(b"caf\xe9")
        self.refused([(1, ["train", self.config, f"--data.path={path}"])], "data.path", "UTF-8")

    def test_more_shards_than_a_batch_can_have(self):
        self.train_refused({"train.batch": 2**30, "train.shards": 2**30}, "train.shards", "2^20")

    def test_an_empty_configuration(self):
        config = self.room.config("empty", "")
        self.refused([(2, ["train", config])], "data.path")

    def test_a_configuration_in_place_of_a_run_to_generate_from(self):
        self.refused([(1, ["generate", self.config])], str(self.config), "name the folder of a run")

    def test_a_missing_configuration(self):
        self.refused([(2, ["train", self.room / "none.toml"])], str(self.room / "none.toml"))

    # Resuming

    def trained(self):
        folder = self.room.new("run")
        done = muster.train(self.config, folder, 1, {})
        self.assertEqual(done.code, 0, done)
        return folder

    def test_a_key_that_may_not_change_on_resume(self):
        folder = self.trained()
        self.train_refused({"optimizer.lr": 0.5, "train.steps": 8}, "optimizer.lr may not change", "another run.dir",
                           run_dir=folder)
        self.assertEqual(muster.complete_steps(folder), [2, 4])

    def test_a_checkpoint_of_another_model(self):
        folder = self.trained()
        self.train_refused({"model.width": 128}, "model.width may not change", "another run.dir", run_dir=folder)

    def test_other_data_on_resume(self):
        folder = self.trained()
        other = muster.prepare(self.room.new("data"), seed=2)
        self.train_refused({"data.path": other, "train.steps": 8}, other, run_dir=folder)

    # Disks

    def small_disk(self, kibibytes):
        path = self.room.new("disk")
        path.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "none", str(path)],
                                 capture_output=True, text=True)
        if mounted.returncode != 0:
            self.skipTest(f"cannot mount a small disk: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", str(path)], check=True)
        return path

    def test_a_disk_too_small_for_a_checkpoint(self):
        folder = self.small_disk(900) / "run"  # a checkpoint takes 1.4 MiB
        self.train_refused({}, str(folder), "free space", run_dir=folder)
        self.assertFalse(folder.exists(), "it is known before the first step")

    def test_a_disk_that_fills_up_with_checkpoints(self):
        folder = self.small_disk(4000) / "run"
        self.train_refused({"train.steps": 20, "checkpoint.keep": 0}, str(folder), "free space", run_dir=folder)
        steps = muster.complete_steps(folder)
        self.assertEqual(steps, [2, 4])
        self.assertEqual(len(os.listdir(folder / "checkpoints")), len(steps), "nothing unfinished is left")
        for step in steps:
            muster.checkpoint_hash(folder, step)  # fails unless intact

    def test_a_disk_that_fills_up_with_metrics(self):
        folder = self.small_disk(160) / "run"
        self.train_refused({"train.steps": 100000, "checkpoint.every": 0, "model.width": 8, "model.layers": 1}, str(folder), "free space", run_dir=folder)

    def test_a_disk_that_is_full_from_the_start(self):
        disk = self.small_disk(64)
        (disk / "filler").write_bytes(bytes(64 << 10))
        self.train_refused({}, str(disk), run_dir=disk / "run")

    def test_a_disk_too_small_for_a_dataset(self):
        output = self.small_disk(40) / "data"
        self.refused([(1, ["prepare", self.data + ".jsonl", "--output", output])], str(output), "free space")
        self.assertFalse(output.exists() and any(output.iterdir()))


if __name__ == "__main__":
    unittest.main(verbosity=2)
