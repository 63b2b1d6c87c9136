"""Processes that are killed, asked to stop, stopped, or hang, in every phase of a run."""

import os
import signal
import time

import muster
from faults import MISSED, RECOVERED, Fault
from phases import PHASES, Strike
from scene import TRY_AGAIN, expect, on

WATCHDOG = 1  # s; of runs that are to hang

KILLED = (128 + signal.SIGKILL, -signal.SIGKILL)  # as mpirun tells it, and of a process alone


class OfAPhase(Fault):
    def __init__(self, phase):
        self.where = phase

    @staticmethod
    def came_too_late(scene, told, codes=(0,)):
        if scene.struck():
            return False
        expect(told.code in codes, "the run fails before anything strikes it;", told)
        return True


class KillAtACall(OfAPhase):
    kind = "kill"

    def strike(self, scene, rng):
        at = Strike(scene, rng, self.where, mpi=True)
        of_all = bool(at.ranks) and rng.random() < 0.3
        self.detail = f"{at}{', each there' if of_all else ''}"
        told = scene.finish(at.start(scene, "kill", of_all=of_all))
        if self.came_too_late(scene, told):
            return MISSED
        expect(told.code in KILLED, "a killed rank ends all with 137;", told)
        scene.check_ended()
        scene.check_mpi_clean()
        scene.check_next_start_cleans()
        scene.go_on(rng)
        return RECOVERED


class KillAtAnInstant(Fault):
    kind = "kill"

    def __init__(self, who):
        self.who, self.where = who, f"any instant, {who}"

    def strike(self, scene, rng):
        ranks = scene.other_ranks(rng, 2 if self.who == "mpirun" else 0)
        after = rng.uniform(0, 0.6)
        self.detail = f"{on(ranks)}, after {after:.3f} s"
        process = scene.start(ranks, scene.steps_ahead(8))
        time.sleep(after)
        if process.poll() is not None:
            scene.finish(process)
            return MISSED
        living = muster.ranks_of(process)
        if self.who == "mpirun" or not living:
            os.kill(process.pid, signal.SIGKILL)
        elif self.who == "all":
            muster.kill_session(process)
        else:
            os.kill(rng.choice(living), signal.SIGKILL)
        told = scene.finish(process)
        # Its end may have come before the signal.
        expect(told.code in (*KILLED, 0), "a kill ends all with 137;", told)
        if self.who == "rank" and living:
            scene.check_ended()
            scene.check_mpi_clean()
            scene.go_on(rng)
            return RECOVERED
        # The next start meets ranks that still live, and waits for them.
        last = scene.steps_ahead(16)
        told = scene.finish(scene.start(scene.other_ranks(rng), last))
        expect(told.code == 0, "the start after a killed mpirun fails;", told)
        scene.check_ended()
        scene.check_mpi_clean(mpirun_killed=True)
        scene.check_arrived(last, told)
        scene.check_clean(last)
        return RECOVERED


class AskToStop(OfAPhase):
    """A call is held up until the signals have come, once or twice, to one rank or to all, or to mpirun."""
    kind = "ask to stop"
    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

    def strike(self, scene, rng):
        at = Strike(scene, rng, self.where)
        signals = [rng.choice(self.SIGNALS) for _ in range(rng.randint(1, 2))]
        to = rng.choice(["one", "all"] + (["mpirun"] if at.ranks else []))
        if to == "mpirun":
            signals = [signal.SIGUSR1] * len(signals)  # what it hands on
        self.detail = f"{at}; {' and '.join(s.name for s in signals)} to {to}"
        process = at.start(scene, "delay=0.4")
        if not scene.wait_for_strike(process):
            self.came_too_late(scene, scene.finish(process))
            return MISSED
        ranks = muster.ranks_of(process) or [process.pid]
        receivers = {"one": [rng.choice(ranks)], "all": ranks, "mpirun": [process.pid]}[to]
        for number in signals:
            for pid in receivers:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass  # it was at its end
        told = scene.finish(process)
        records = muster.metrics(scene.run)
        if told.code == 0:
            expect(len(records) == at.last_step, "it ends with 0 before its last step;", told)
        else:
            expect(told.code == muster.INTERRUPTED, "whoever is asked to stop ends with 85;", told)
            expect(not told.complaints(), "no error is told;", told)
            saved = scene.saved()
            expect(not records or saved == len(records), f"saved is step {saved}, taken were {len(records)};", told)
        scene.check_ended()
        scene.check_mpi_clean()
        scene.go_on(rng)
        return RECOVERED


class EndMpirun(Fault):
    """As a person or a batch system does that knows of no ranks: mpirun kills them."""
    kind, where = "ask to stop", "any instant, TERM or INT to mpirun"

    def strike(self, scene, rng):
        ranks = scene.other_ranks(rng, 1)
        number, after = rng.choice([signal.SIGTERM, signal.SIGINT]), rng.uniform(0.2, 0.8)
        self.detail = f"{number.name}, {on(ranks)}, after {after:.3f} s"
        process = scene.start(ranks, scene.steps_ahead(8))
        time.sleep(after)
        if process.poll() is not None:
            scene.finish(process)
            return MISSED
        process.send_signal(number)
        scene.finish(process)
        scene.check_ended()
        scene.check_mpi_clean()
        scene.go_on(rng)
        return RECOVERED


class Hang(OfAPhase):
    """The watchdog ends all with 75, and says who hung."""

    def assert_ended(self, scene, rng, process):
        told = scene.finish(process)
        if self.came_too_late(scene, told, (0, TRY_AGAIN)):  # a busy machine may look as if all hung
            return MISSED
        expect(told.code == TRY_AGAIN, "a rank that hangs ends all with 75;", told)
        expect(told.complaints(), "nobody says who hung;", told)
        scene.check_ended()
        scene.check_mpi_clean()
        scene.go_on(rng)
        return RECOVERED


class StopForEver(Hang):
    kind = "stop (SIGSTOP)"

    def strike(self, scene, rng):
        # Where nobody is left to see it, nobody says so: of one rank alone, and where the others have ended.
        at = Strike(scene, rng, self.where, mpi=self.where != "end", least_ranks=2)
        self.detail = str(at)
        return self.assert_ended(scene, rng, at.start(scene, "stop", watchdog=WATCHDOG))


class HangForEver(Hang):
    kind = "hang in a call"

    def strike(self, scene, rng):
        at = Strike(scene, rng, self.where, mpi=True)
        self.detail = str(at)
        return self.assert_ended(scene, rng, at.start(scene, "hang", watchdog=WATCHDOG))


class StopForAWhile(OfAPhase):
    kind = "stop and go on"

    def strike(self, scene, rng):
        at = Strike(scene, rng, self.where, mpi=True)
        pause = rng.uniform(0, 0.5)
        self.detail = f"{at}, for {pause:.2f} s"
        process = at.start(scene, "stop")
        if not scene.wait_for_strike(process):
            self.came_too_late(scene, scene.finish(process))
            return MISSED
        time.sleep(pause)
        stopped = [int(line.split()[0]) for line in muster.lines(scene.disk_log)]
        for pid in stopped:
            scene.wait(lambda pid=pid: muster.processes(lambda f: f[0] == "T").get(pid), "the process to stop")
            os.kill(pid, signal.SIGCONT)
        told = scene.finish(process)
        expect(told.code == 0, "a run that was held for a while ends as if it was not;", told)
        scene.check_arrived(at.last_step, told)
        scene.check_clean(at.last_step)
        return RECOVERED


def all_of_them():
    kinds = (KillAtACall, AskToStop, StopForEver, HangForEver, StopForAWhile)
    return [*(kind(phase) for kind in kinds for phase in PHASES), *map(KillAtAnInstant, ("rank", "all", "mpirun")),
            EndMpirun()]
