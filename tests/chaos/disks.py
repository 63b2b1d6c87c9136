"""Disks that are slow, full or broken, or that do what they are asked in parts."""

from faults import MISSED, RECOVERED, REFUSED
from interruptions import OfAPhase
from phases import PHASES, Strike
from scene import expect, one_complaint

WATCHDOG = 3  # s; some delays are longer


class Slow(OfAPhase):
    kind = "slow disk"

    def strike(self, scene, rng):
        at = Strike(scene, rng, self.where, mpi=True)
        # A sync or a removal may take four times what the watchdog waits for the rest.
        longest = WATCHDOG * (1.5 if at.point.call in ("fsync", "unlink") else 0.4)
        delay = longest * rng.random() ** 2
        self.detail = f"{at}, {delay:.2f} s late"
        told = scene.finish(at.start(scene, f"delay={delay:.3f}", watchdog=WATCHDOG))
        if self.came_too_late(scene, told):
            return MISSED
        expect(told.code == 0, "a slow disk ends no run;", told)
        scene.check_arrived(at.last_step, told)
        scene.check_clean(at.last_step)
        return RECOVERED


class Short(OfAPhase):
    kind = "short reads, writes"

    def strike(self, scene, rng):
        at = Strike(scene, rng, self.where, calls=("read", "write"))
        and_after = rng.random() < 0.5
        self.detail = f"{at}{' and after' if and_after else ''}"
        told = scene.finish(at.start(scene, "short", and_after=and_after))
        if self.came_too_late(scene, told):
            return MISSED
        expect(told.code == 0, "a call that does half of its work is called again;", told)
        scene.check_arrived(at.last_step, told)
        scene.check_clean(at.last_step)
        return RECOVERED


class Failing(OfAPhase):
    """Told in one line with exit code 2, or passed over; the next start has a disk that works."""
    kind = "failing disk"

    def strike(self, scene, rng):
        at = Strike(scene, rng, self.where)
        error = "EIO" if at.point.call in ("read", "rename", "unlink") else rng.choice(["EIO", "ENOSPC", "EDQUOT"])
        and_after, of_all = rng.random() < 0.5, rng.random() < 0.3
        self.detail = f"{error}: {at}{' and after' if and_after else ''}{', all ranks' if of_all else ''}"
        told = scene.finish(at.start(scene, f"fail={error}", and_after=and_after, of_all=of_all))
        if self.came_too_late(scene, told):
            return MISSED
        scene.check_ended()
        scene.check_mpi_clean()
        if told.code == 0:
            scene.check_arrived(at.last_step, told)
            scene.go_on(rng)
            return RECOVERED
        line = one_complaint(told)
        expect(str(scene.room.path) in line, "the line names no file;", told)
        if at.point.call != "unlink":
            expect(not scene.run.exists() or not scene.leftovers(), "left by a save that failed:", *scene.leftovers(), told)
        scene.go_on(rng)
        return REFUSED


def all_of_them():
    short = [phase for phase in PHASES if phase != "end"]  # where nothing is read or written
    return [*map(Slow, PHASES), *map(Short, short), *map(Failing, PHASES)]
