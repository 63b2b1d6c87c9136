"""A prepare that is killed, asked to stop, or has a bad disk: the next into the same folder makes the same bytes."""

import os
import shutil
import signal

import muster
from faults import MISSED, RECOVERED, REFUSED, Fault
from scene import expect, files_of, one_complaint

CALLS = (("read", "*/text.jsonl", 2), ("open", "*/prepare.partial", 1), ("open", "*.h5*", 4), ("write", "*.h5*", 40),
         ("fsync", "*.h5*", 3), ("rename", "*.h5*", 3), ("write", "*/dataset.json*", 1), ("fsync", "*/dataset.json*", 1),
         ("rename", "*/dataset.json*", 1))


class Preparing(Fault):
    where = "prepare"
    calls = ("read", "open", "write", "fsync", "rename")

    def draw(self, rng):
        call, path, last = rng.choice([c for c in CALLS if c[0] in self.calls])
        number = rng.randint(1, last)
        self.detail = f"{call} {path}, call {number}"
        return call, number, path

    def strike(self, scene, rng):
        call, number, path = self.draw(rng)
        action, plus = self.action(rng, call)
        self.detail += f", {action}{' and after' if plus else ''}"
        folder = scene.room.new("prepared")
        process = scene.start_prepare(folder, f"{call} {number}{plus} {action} {path}")
        self.during(scene, rng, process)
        told = scene.finish(process)
        if not scene.struck():
            expect(told.code == 0, "it fails before anything strikes it;", told)
            shutil.rmtree(folder, ignore_errors=True)
            return MISSED
        outcome = self.judge(scene, told, folder)
        if told.code != 0:
            again = scene.finish(scene.start_prepare(folder))
            expect(again.code == 0, "the next prepare into the folder fails;", again, "after", told)
        expect(files_of(folder) == scene.files_of_data, "another dataset, or more than it:", *files_of(folder))
        shutil.rmtree(folder)
        return outcome

    def action(self, rng, call):
        raise NotImplementedError

    def during(self, scene, rng, process):
        pass

    def judge(self, scene, told, folder):
        raise NotImplementedError


class Killed(Preparing):
    kind = "kill"

    def action(self, rng, call):
        return "kill", ""

    def judge(self, scene, told, folder):
        expect(told.code == -signal.SIGKILL, "a kill is a kill;", told)
        return RECOVERED


class Ended(Preparing):
    kind = "ask to stop"

    def action(self, rng, call):
        return "delay=0.3", ""

    def during(self, scene, rng, process):
        if scene.wait_for_strike(process):
            self.number = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
            self.detail += f", {self.number.name}"
            os.kill(process.pid, self.number)

    def judge(self, scene, told, folder):
        expect(told.code == -self.number, "it ends by the signal;", told)
        return RECOVERED


class SlowOrShort(Preparing):
    kind = "slow disk"
    calls = ("read", "write", "fsync")

    def action(self, rng, call):
        if call == "fsync" or rng.random() < 0.3:
            return "delay=0.3", ""
        return "short", rng.choice(["", "+"])

    def judge(self, scene, told, folder):
        expect(told.code == 0, "it is no failure;", told)
        return RECOVERED


class Failing(Preparing):
    kind = "failing disk"

    def action(self, rng, call):
        return f"fail={'EIO' if call in ('read', 'rename') else rng.choice(['EIO', 'ENOSPC'])}", rng.choice(["", "+"])

    def judge(self, scene, told, folder):
        line = one_complaint(told)
        expect(str(scene.room.path) in line, "the line names no file;", told)
        expect(not folder.exists() or not any(folder.iterdir()), "a prepare that fails leaves:", *files_of(folder))
        return REFUSED


def all_of_them():
    return [Killed(), Ended(), SlowOrShort(), Failing()]
