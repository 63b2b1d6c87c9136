#!/usr/bin/env python3
"""Includes point downwards only: trainer -> model, data, comm -> core. model, data and comm do not know each other.

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

# A library, the files that may include it, and none of the others. build_info tells every library's version.
DOORS = {
    r"<mpi\.h>": r"comm/mpi/|trainer/build_info\.cpp",
    r"<(hdf5\.h|H5\w+\.h)>": r"core/hdf5\.cpp|trainer/build_info\.cpp",
    r"<oneapi/": r"model/ops/onednn_product\.cpp|trainer/build_info\.cpp",
    r"<toml\+\+/": r"trainer/config/\w+\.cpp|trainer/build_info\.cpp",
    r"<CLI/": r"trainer/cli/\w+\.cpp|trainer/build_info\.cpp",
    r"<nlohmann/": r".*\.cpp",
    r"<spdlog/": r"trainer/metrics/log\.cpp|trainer/run/training_run\.cpp|trainer/build_info\.cpp",
    r"<xxhash": r"core/hash\.cpp|trainer/build_info\.cpp",
    r"<(zlib|zstd)\.h>": r"data/inputs/compressed\.cpp|trainer/build_info\.cpp",
    r"<(cuda_|nvtx3/)": r"core/cuda/|model/ops/cuda/",
    r"<cublasLt\.h>": r"model/ops/cuda/(context|matmul)\.cpp",
    r"<cudnn": r"model/ops/cuda/attention_(cudnn\.cpp|graphs\.hpp)",
    r"<nccl\.h>": r"comm/nccl/",
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"][^>"]+[>"])', re.MULTILINE)


def violations(files):
    """Lines that say what is wrong with the includes of `files`, a dict from path to content."""
    for path, content in sorted(files.items()):
        folder = path.split("/")[0]
        for include in INCLUDE.findall(content):
            if include.startswith('"'):
                target = include.strip('"')
                if target not in files:
                    yield f'{path}: "{target}" is no path from the root of the tree'
                elif target.split("/")[0] not in SEES[folder]:
                    yield f'{path}: {folder} must not include "{target}"'
            for library, door in DOORS.items():
                if re.match(library, include) and not re.match(door, path):
                    yield f"{path}: {include} may only be included by {door}"


def check_itself():
    """The check sees each kind of violation."""
    good = {
        "core/a.hpp": "#include <vector>\n",
        "model/b.hpp": '#include "core/a.hpp"\n',
        "trainer/c.cpp": '#include "model/b.hpp"\n#include <nlohmann/json.hpp>\n',
    }
    assert not list(violations(good))
    for path, content in {
        "core/d.hpp": '#include "model/b.hpp"',
        "data/d.hpp": '#include "model/b.hpp"',
        "model/d.hpp": '#include "trainer/c.cpp"',
        "trainer/d.hpp": '#include "b.hpp"',
        "trainer/e.cpp": "# include <mpi.h>",
        "trainer/f.hpp": "#include <nlohmann/json.hpp>",
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
