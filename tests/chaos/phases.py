"""The phases of a run, and calls on files by which a fault meets each exactly where it is meant to (slow_disk.cpp)."""

from dataclasses import dataclass

import scene

PHASES = ("start", "resume", "step", "save", "evaluation", "end")

# HDF5 reads so often until a shard is open; what comes after it are samples, and windows to evaluate.
READS_OF_OPENING = 15


@dataclass(frozen=True)
class Point:
    phase: str
    call: str         # open, read, write, fsync, rename or unlink
    path: str         # a pattern
    first: int = 1    # which of these calls: drawn from first to last
    last: int = 1
    by_first: bool = False  # only rank 0 makes it
    mpi: bool = False       # in Open MPI, which has no errors of ours to tell

    def __str__(self):
        return f"{self.call} {self.path.removeprefix('*/')}"


POINTS = (
    Point("start", "open", "*/dataset.json"),
    Point("start", "read", "*/dataset.json"),
    Point("start", "open", "*/train-*.h5", 1, 4),
    Point("start", "read", "*/train-*.h5", 1, READS_OF_OPENING),
    Point("start", "read", "*/validation-*.h5", 1, READS_OF_OPENING),
    Point("start", "open", "*/attempts/*", by_first=True),
    Point("start", "write", "*/attempts/*", by_first=True),
    Point("start", "fsync", "*/attempts", by_first=True),
    Point("start", "write", "*/config.toml.partial-*", by_first=True),
    Point("start", "rename", "*/config.toml.partial-*", by_first=True),
    Point("start", "fsync", "*/run.json.partial-*", by_first=True),
    Point("start", "rename", "*/run.json.partial-*", by_first=True),
    Point("start", "open", "*vader_segment*", mpi=True),
    Point("resume", "read", "*/manifest.json", 1, 3),
    Point("resume", "open", "*/step-????????/rank-*.h5", 1, 6),
    Point("resume", "read", "*/step-????????/rank-*.h5", 1, 30),
    Point("resume", "write", "*/metrics.jsonl.partial-*", by_first=True),
    Point("resume", "fsync", "*/metrics.jsonl.partial-*", by_first=True),
    Point("resume", "rename", "*/metrics.jsonl.partial-*", by_first=True),
    Point("step", "read", "*/train-*.h5", 2 * READS_OF_OPENING + 4, 2 * READS_OF_OPENING + 16),
    Point("step", "write", "*/metrics.jsonl", 1, 8, by_first=True),
    Point("save", "fsync", "*/metrics.jsonl", 1, 3, by_first=True),
    Point("save", "open", "*.partial-*/rank-*.h5", 1, 6),
    Point("save", "write", "*.partial-*/rank-*.h5", 1, 60),
    Point("save", "fsync", "*.partial-*/rank-*.h5", 1, 3),
    Point("save", "write", "*.partial-*/manifest.json.partial-*", 1, 3, by_first=True),
    Point("save", "rename", "*.partial-*/manifest.json.partial-*", 1, 3, by_first=True),
    Point("save", "rename", "*/step-????????.partial-*", 1, 3, by_first=True),
    Point("save", "fsync", "*/checkpoints", 1, 3, by_first=True),
    Point("evaluation", "read", "*/validation-*.h5", READS_OF_OPENING + 1, READS_OF_OPENING + 8),
    Point("end", "fsync", "*.partial-*/rank-*.h5", 0, 0),
    Point("end", "rename", "*/step-????????.partial-*", 0, 0, by_first=True),
    Point("end", "rename", "*/step-????????", by_first=True),
    Point("end", "unlink", "*.removing/*", by_first=True),
    Point("end", "fsync", "*/metrics.jsonl.partial-*", 2, 2, by_first=True),  # with the last evaluation
    Point("end", "rename", "*/metrics.jsonl.partial-*", 2, 2, by_first=True),
    Point("end", "unlink", "*vader_segment*", mpi=True),
)


def points(phase, calls, mpi):
    found = [p for p in POINTS if p.phase == phase and p.call in calls and (mpi or not p.mpi)]
    return found


class Strike:
    """One point, drawn: of a start, on which number of ranks, at which of them."""

    STEPS = 8  # that the start is to take

    def __init__(self, scene_, rng, phase, calls=("open", "read", "write", "fsync", "rename", "unlink"), mpi=False,
                 least_ranks=0):
        if phase == "resume":
            scene_.need_checkpoints(rng, 1)
        self.point = rng.choice(points(phase, calls, mpi))
        if self.point.mpi or (self.point.by_first and least_ranks == 2):
            least_ranks = max(least_ranks, 2)
        self.ranks = scene_.other_ranks(rng, least_ranks)
        self.last_step = scene_.steps_ahead(self.STEPS)
        self.number = rng.randint(self.point.first, self.point.last)
        if self.number == 0:  # that of the last save
            self.number = self.last_step // scene.EVERY - scene_.saved() // scene.EVERY
        self.of_rank = 0 if self.point.by_first else rng.randrange(self.ranks or 1)

    def rule(self, action, and_after=False):
        return f"{self.point.call} {self.number}{'+' if and_after else ''} {action} {self.point.path}"

    def start(self, scene_, action, *, of_all=False, and_after=False, watchdog=scene.FOR_EVER):
        return scene_.start(self.ranks, self.last_step, disk=self.rule(action, and_after),
                            of_rank=None if of_all else self.of_rank, watchdog=watchdog)

    def __str__(self):
        who = "alone" if not self.ranks else f"rank {self.of_rank} of {self.ranks}"
        return f"{self.point}, call {self.number}, {who}"
