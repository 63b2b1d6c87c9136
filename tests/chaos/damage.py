"""Damage to every file of a run and of a dataset, at rest and under a run that reads it."""

import json
import os
import shutil

import muster
from faults import MISSED, RECOVERED, REFUSED, Fault
from phases import Strike
from scene import EVERY, KEEP, expect, one_complaint


# Ways of damage: each changes what stands under a path, and says what it did.


def flip_a_bit(path, rng, _):
    contents = bytearray(path.read_bytes())
    at, bit = rng.randrange(len(contents)), rng.randrange(8)
    contents[at] ^= 1 << bit
    path.write_bytes(contents)
    return f"bit {bit} of byte {at} flipped"


def zero_a_block(path, rng, _):
    contents = bytearray(path.read_bytes())
    used = [i for i, byte in enumerate(contents) if byte]
    begin = rng.choice(used)
    end = min(len(contents), begin + rng.choice([16, 512, 4096]))
    contents[begin:end] = bytes(end - begin)
    path.write_bytes(contents)
    return f"bytes {begin} to {end} zeroed"


def cut_short(path, rng, _):
    size = rng.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"cut to {size} bytes"


def empty(path, *_):
    os.truncate(path, 0)
    return "emptied"


def add_garbage(path, rng, _):
    garbage = rng.randbytes(rng.choice([1, 100, 5000]))
    with open(path, "ab") as file:
        file.write(garbage)
    return f"{len(garbage)} bytes of garbage behind it"


def delete(path, *_):
    path.unlink()
    return "deleted"


def put_a_folder_there(path, *_):
    path.unlink()
    path.mkdir()
    return "a folder in its place"


def exchange(path, rng, others):
    other = rng.choice(others)
    mine, its = path.read_bytes(), other.read_bytes()
    path.write_bytes(its)
    other.write_bytes(mine)
    return f"exchanged with {other.name}"


def overwrite(path, rng, others):
    other = rng.choice(others)
    shutil.copyfile(other, path)
    return f"overwritten by {other.parent.name}/{other.name}"


ALONE = (flip_a_bit, flip_a_bit, zero_a_block, cut_short, empty, add_garbage, delete, put_a_folder_there)


def damage(path, rng, beside=(), elsewhere=(), ways=ALONE):
    """Says what it did. `beside`: files that it may be exchanged with; `elsewhere`: some that may only be copied."""
    before = path.read_bytes()

    def others(files):
        return [file for file in files if file != path and file.read_bytes() != before]

    beside, elsewhere = others(beside), others(elsewhere)
    ways = [(way, ()) for way in (ways if before else (add_garbage, delete, put_a_folder_there))]
    ways += [(exchange, beside)] * bool(beside) + [(overwrite, beside + elsewhere)] * bool(beside + elsewhere)
    way, files = rng.choice(ways)
    return way(path, rng, files)


def put_back(whole, checkpoint):
    """What it was: nobody removes a damaged one but who saves its step anew, as it may be worth something to somebody."""
    if checkpoint.exists():
        shutil.rmtree(checkpoint)
        shutil.copytree(whole, checkpoint)


class Damage(Fault):
    kind = "damage"


class OfADataset(Damage):
    """Refused in a line that names the file, and the run goes on once it is restored."""

    def __init__(self, where, pattern):
        self.where, self.pattern = where, pattern

    def strike(self, scene, rng):
        files = sorted(scene.data.iterdir())
        path = rng.choice([f for f in files if f.match(self.pattern)])
        did = damage(path, rng, files)
        self.detail = f"{path.name}: {did}"
        told = scene.finish(scene.start(scene.other_ranks(rng), scene.steps_ahead(EVERY)))
        line = one_complaint(told)
        expect(str(scene.data) in line, "the line does not name the dataset;", told)
        damaged = [p.name for p in files if not p.is_file() or p.read_bytes() != scene.files_of_data[p.name]]
        expect(any(name in line for name in damaged), f"the line names none of {damaged};", told)
        scene.check_ended()
        scene.check_mpi_clean()
        scene.restore_data()
        scene.go_on(rng)
        return REFUSED


class OfAShardThatIsRead(Damage):
    """Under a run: it finds the damage when it comes there, or has read all that it needs."""
    where = "shard, while it is read"

    def strike(self, scene, rng):
        at = Strike(scene, rng, "step", calls=("read",))
        process = at.start(scene, "delay=0.3")
        if not scene.wait_for_strike(process):
            scene.finish(process)
            return MISSED
        path = rng.choice(sorted(scene.data.glob("train-*.h5")))
        did = damage(path, rng, ways=(flip_a_bit, zero_a_block, cut_short))
        self.detail = f"{at}; {path.name}: {did}"
        told = scene.finish(process)
        scene.restore_data()
        scene.check_ended()
        scene.check_mpi_clean()
        if told.code == 0:
            scene.check_arrived(at.last_step, told)
        else:
            expect(path.name in one_complaint(told), "the line does not name the file;", told)
        scene.go_on(rng)
        return REFUSED if told.code else RECOVERED


class OfARunThatTrains(Damage):
    """Whatever is damaged under it, it gets on, or ends with a line; and the next start does."""
    where = "a run's files, while it trains"

    def strike(self, scene, rng):
        scene.need_checkpoints(rng, 2)
        at = Strike(scene, rng, rng.choice(["step", "save", "evaluation"]), calls=("read", "write", "fsync"))
        process = at.start(scene, "delay=0.3")
        if not scene.wait_for_strike(process):
            scene.finish(process)
            return MISSED
        checkpoint = scene.run / "checkpoints" / f"step-{scene.saved():08}"
        whole = scene.room.new("whole")
        shutil.copytree(checkpoint, whole)
        pattern = rng.choice(["config.toml", "run.json", "attempts/*", "log/*", f"checkpoints/{checkpoint.name}/*"])
        path = rng.choice(sorted(scene.run.glob(pattern)))
        self.detail = f"{at}; {path.relative_to(scene.run)}: {damage(path, rng)}"
        told = scene.finish(process)
        scene.check_ended()
        scene.check_mpi_clean()
        if told.code != 0:
            one_complaint(told)
        if path.is_dir():
            path.rmdir()
        put_back(whole, checkpoint)
        shutil.rmtree(whole)
        scene.go_on(rng, steps=KEEP * EVERY)
        return REFUSED if told.code else RECOVERED


class OfACheckpoint(Damage):
    """One that is whole is used in its place, with a warning; the only one is refused in a line."""

    def __init__(self, which, pattern):
        self.which, self.pattern, self.where = which, pattern, f"{which} checkpoint, {pattern}"

    def strike(self, scene, rng):
        scene.need_checkpoints(rng, 1 if self.which == "only" else 2)
        folder = scene.run / "checkpoints"
        steps = muster.complete_steps(scene.run)
        step = rng.choice(steps[:-1]) if self.which == "older" else steps[-1]
        checkpoint = folder / f"step-{step:08}"
        if self.which == "only":
            for other in steps[:-1]:
                shutil.rmtree(folder / f"step-{other:08}")
        whole = scene.room.new("whole")
        shutil.copytree(checkpoint, whole)
        files = sorted(checkpoint.iterdir())
        path = rng.choice([file for file in files if file.match(self.pattern)])
        did = damage(path, rng, files, [f for f in folder.glob("*/*") if f.parent != checkpoint])
        self.detail = f"step {step}, {path.name}: {did}"
        last = scene.steps_ahead(EVERY)
        told = scene.finish(scene.start(scene.other_ranks(rng), last))
        scene.check_ended()
        scene.check_mpi_clean()
        if self.which != "older":
            expect(f"skipping {checkpoint}" in told.err, "the damaged one is not told of;", told)
        if self.which == "only":
            expect("holds checkpoints and none can be used" in one_complaint(told), "another line;", told)
        else:
            expect(told.code == 0, "a damaged checkpoint keeps a run from going on;", told)
            used = steps[-1] if self.which == "older" else steps[-2]
            expect(f"(step {used} of" in told.out, f"it does not go on from step {used};", told)
            scene.check_arrived(last, told)
        if self.which != "newest":
            put_back(whole, checkpoint)
        shutil.rmtree(whole)
        scene.go_on(rng, steps=KEEP * EVERY)
        return REFUSED if self.which == "only" else RECOVERED


class OfTheConfiguration(Damage):
    """Of a run that goes on by its folder: refused by its name or a key's, or of no matter."""
    where = "config.toml"

    def strike(self, scene, rng):
        scene.need_checkpoints(rng, 1)
        path = scene.run / "config.toml"
        whole = path.read_bytes()
        self.detail = damage(path, rng, elsewhere=[scene.run / "run.json", scene.config()])
        last = scene.steps_ahead(EVERY)
        told = scene.finish(scene.start(scene.other_ranks(rng), last, of_run=True))
        if path.is_dir():
            path.rmdir()
        path.write_bytes(whole)
        scene.check_ended()
        scene.check_mpi_clean()
        if told.code == 0:
            scene.check_bits(last)
        elif told.code != muster.INTERRUPTED:  # which a time limit may do
            one_complaint(told)
        scene.go_on(rng)
        return RECOVERED if told.code == 0 else REFUSED


class OfMetrics(Damage):
    """Mended and told; what cannot be known again is missing."""
    where = "metrics.jsonl"

    def strike(self, scene, rng):
        scene.need_checkpoints(rng, 1)
        path = scene.run / "metrics.jsonl"
        whole, before = path.read_text(), muster.metrics(scene.run)
        self.detail = damage(path, rng, elsewhere=[scene.run / "config.toml", scene.run / "run.json"])
        if not path.is_file():
            return self.of_a_folder(scene, rng, path, whole)
        last = scene.steps_ahead(EVERY)
        told = scene.finish(scene.start(scene.other_ranks(rng), last))
        expect(told.code == 0, "damaged metrics keep a run from going on;", told)
        records = muster.metrics(scene.run)
        steps = [record["step"] for record in records]
        expect(steps == sorted(set(steps)) and steps[-1] == last, "steps that stand twice, or not in order:", steps, told)
        news = [json.dumps(record) for record in records if record["step"] > len(before)]
        path.write_text(whole + "".join(line + "\n" for line in news))
        (scene.run / "metrics.jsonl.damaged").unlink(missing_ok=True)
        scene.check_arrived(last, told)
        scene.go_on(rng)
        return RECOVERED

    def of_a_folder(self, scene, rng, path, whole):
        """Or of nothing at all."""
        is_folder = path.is_dir()
        last = scene.steps_ahead(EVERY)
        told = scene.finish(scene.start(scene.other_ranks(rng), last))
        if is_folder:
            expect(str(path) in one_complaint(told), "the line does not name the file;", told)
            path.rmdir()
            path.write_text(whole)
            scene.go_on(rng)
            return REFUSED
        expect(told.code == 0 and "steps are missing" in told.err, "missing metrics are not told;", told)
        path.write_text(whole + path.read_text())
        scene.check_arrived(last, told)
        scene.go_on(rng)
        return RECOVERED


class OfWhatNobodyNeeds(Damage):
    """The run goes on as if it was whole; only what cannot be written anew is refused."""

    def __init__(self, where, pattern):
        self.where, self.pattern = where, pattern

    def strike(self, scene, rng):
        scene.need_checkpoints(rng, 1)
        if self.where == "trace":
            scene.go_on(rng, options=["--trace", f"step={scene.saved() + 1}"])
        folder = scene.cache if self.where == "cache" else scene.run
        path = rng.choice(sorted(folder.glob(self.pattern)))
        did = damage(path, rng)
        self.detail = f"{path.name}: {did}"
        last = scene.steps_ahead(EVERY)
        told = scene.finish(scene.start(scene.other_ranks(rng), last))
        scene.check_ended()
        refused = told.code != 0
        if refused:
            expect(path.is_dir() and str(path) in one_complaint(told), "damage to what nobody needs ends a run;", told)
        else:
            scene.check_arrived(last, told)
        if path.is_dir():
            path.rmdir()
        scene.go_on(rng)
        return REFUSED if refused else RECOVERED


def all_of_them():
    return [OfADataset("dataset.json", "dataset.json"), OfADataset("train shard", "train-*.h5"),
            OfADataset("validation shard", "validation-*.h5"), OfAShardThatIsRead(), OfARunThatTrains(),
            *(OfACheckpoint(which, pattern) for which in ("newest", "older", "only")
              for pattern in ("manifest.json", "rank-*.h5")),
            OfTheConfiguration(), OfMetrics(),
            *(OfWhatNobodyNeeds(*w) for w in (("attempts", "attempts/*"), ("log", "log/rank-*.log"),
                                             ("run.json", "run.json"), ("trace", "trace-*.json"),
                                             ("cache", "muster/core-peak-*")))]
