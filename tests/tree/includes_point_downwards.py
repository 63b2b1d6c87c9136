#!/usr/bin/env python3
"""Includes point downwards only: trainer -> model, data, comm -> core. model, data and comm do not know each other.
The trainer has floors of its own: from the loop of a run one sees its step, and not the other way.

Big libraries stay behind one door each, and out of headers that others include.
"""

import pathlib
import re
import sys

SEES = {
    "core": {"core"},
    "model": {"model", "core"},
    "data": {"data", "core"},
    "comm": {"comm", "core"},
    "trainer": {"trainer", "model", "data", "comm", "core"},
}

# The folders of trainer from the ground up; "" are the files in none. Each sees itself and the floors below; of two on one
# floor neither sees the other.
FLOORS = [
    {"config"},
    {"", "metrics"},
    {"plan"},
    {"step"},
    {"machine", "checkpoint"},
    {"evaluate", "generate"},
    {"loop"},
    {"run"},
    {"bench"},
    {"commands"},
    {"cli"},
]
FLOOR = {folder: floor for floor, folders in enumerate(FLOORS) for folder in folders}
ON_TOP = {"trainer/main.cpp"}
# It adds up what the parts of a step tell of their memory: looked at for that alone, and out of its header.
ADDS_UP = {("trainer/plan/run_plan.cpp", "step")}

# What some see by these rules, and yet must not: whoever takes steps knows no model and no key by its name.
HIDDEN = {
    r"trainer/(loop|step)/": r"model/families/|trainer/config/keys\.hpp",
}

# A library, the files that may include it, and none of the others. build_info tells every library's version.
DOORS = {
    r"<mpi\.h>": r"comm/mpi/|trainer/build_info\.cpp",
    r"<(hdf5\.h|H5\w+\.h)>": r"core/hdf5\.cpp|trainer/build_info\.cpp",
    r"<oneapi/": r"model/ops/onednn_product\.cpp|trainer/build_info\.cpp",
    r"<toml\+\+/": r"trainer/config/\w+\.cpp|trainer/build_info\.cpp",
    r"<CLI/": r"trainer/cli/\w+\.cpp|trainer/build_info\.cpp",
    r"<nlohmann/": r".*\.cpp",
    r"<spdlog/": r"trainer/metrics/log\.cpp|trainer/build_info\.cpp",
    r"<xxhash": r"core/hash\.cpp|trainer/build_info\.cpp",
    r"<(zlib|zstd)\.h>": r"data/inputs/compressed\.cpp|trainer/build_info\.cpp",
    r"<(cuda_|nvtx3/)": r"core/cuda/|model/ops/cuda/",
    r"<cublasLt\.h>": r"model/ops/cuda/(context|matmul)\.cpp",
    r"<cudnn": r"model/ops/cuda/attention_(cudnn\.cpp|graphs\.hpp)",
    r"<nccl\.h>": r"comm/nccl/",
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"][^>"]+[>"])', re.MULTILINE)


def trainer_folder(path):
    """The folder of trainer in which `path` lies, "" if in none of them; None if it is no file of the trainer."""
    parts = path.split("/")
    return None if parts[0] != "trainer" else parts[1] if len(parts) > 2 else ""


def wrong_floor(path, target):
    """Whether `path`, of the trainer, must not include `target`, of the trainer too."""
    here, there = trainer_folder(path), trainer_folder(target)
    if there is None or here == there or path in ON_TOP or (path, there) in ADDS_UP:
        return False
    return FLOOR[there] >= FLOOR[here]


def violations(files):
    """Lines that say what is wrong with the includes of `files`, a dict from path to content."""
    for path, content in sorted(files.items()):
        folder = path.split("/")[0]
        if folder == "trainer" and trainer_folder(path) not in FLOOR:
            yield f"{path}: trainer/{trainer_folder(path)} is on no floor: give it one in FLOORS"
            continue
        for include in INCLUDE.findall(content):
            if include.startswith('"'):
                target = include.strip('"')
                if target not in files:
                    yield f'{path}: "{target}" is no path from the root of the tree'
                elif target.split("/")[0] not in SEES[folder]:
                    yield f'{path}: {folder} must not include "{target}"'
                elif folder == "trainer" and wrong_floor(path, target):
                    yield f'{path}: trainer/{trainer_folder(path)} must not include "{target}"'
                for who, what in HIDDEN.items():
                    if re.match(who, path) and re.match(what, target):
                        yield f'{path}: must not know "{target}"'
            for library, door in DOORS.items():
                if re.match(library, include) and not re.match(door, path):
                    yield f"{path}: {include} may only be included by {door}"


def check_itself():
    """The check sees each kind of violation."""
    good = {
        "core/a.hpp": "#include <vector>\n",
        "model/b.hpp": '#include "core/a.hpp"\n',
        "trainer/c.cpp": '#include "model/b.hpp"\n#include <nlohmann/json.hpp>\n',
        "trainer/main.cpp": '#include "trainer/cli/line.hpp"\n',
        "trainer/cli/line.hpp": "",
        "trainer/step/step.hpp": "",
        "trainer/checkpoint/save.hpp": '#include "trainer/step/step.hpp"\n',
        "trainer/loop/loop.hpp": '#include "trainer/checkpoint/save.hpp"\n',
        "trainer/config/keys.hpp": "",
        "model/families/family.hpp": "",
    }
    assert not list(violations(good))
    for path, content in {
        "core/d.hpp": '#include "model/b.hpp"',
        "data/d.hpp": '#include "model/b.hpp"',
        "model/d.hpp": '#include "trainer/c.cpp"',
        "trainer/d.hpp": '#include "b.hpp"',
        "trainer/e.cpp": "# include <mpi.h>",
        "trainer/f.hpp": "#include <nlohmann/json.hpp>",
        "trainer/g.hpp": '#include "trainer/step/step.hpp"',
        "trainer/step/h.hpp": '#include "trainer/checkpoint/save.hpp"',
        "trainer/checkpoint/i.hpp": '#include "trainer/loop/loop.hpp"',
        "trainer/loop/j.hpp": '#include "trainer/config/keys.hpp"',
        "trainer/step/k.hpp": '#include "model/families/family.hpp"',
        "trainer/attic/l.hpp": "",
    }.items():
        assert list(violations({**good, path: content})), path


def main():
    check_itself()
    root = pathlib.Path(__file__).resolve().parents[2]
    files = {
        str(path.relative_to(root)): path.read_text()
        for folder in SEES
        for path in (root / folder).rglob("*")
        if path.suffix in (".hpp", ".cpp", ".h", ".cu", ".cuh")
    }
    if len(files) < 10:
        sys.exit(f"found only {len(files)} files below {root}")
    wrong = list(violations(files))
    print("\n".join(wrong) or f"{len(files)} files, every include points downwards")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
