#!/usr/bin/env python3
"""Compares the training step of Muster with PyTorch's: a configuration's model, clipping and AdamW included, on this CPU.

Usage: python3 tests/bench/step.py [--config configs/gpt2-124m.toml] [--rounds 5] [--steps 2] [--precision f32 bf16]
                                   [--shape 4x1024 1x256] [--instruction-set avx2]

Runs of Muster, PyTorch eager and PyTorch compiled alternate, so that what else goes on in the machine meets all alike.
All start from the same weights, those of a run of one step, and read the same tokens at each step, so that the losses of
their first steps must agree. --instruction-set lowers both sides alike. Prints the median tokens per second of all
steps of all rounds, and Muster's ratio to PyTorch eager and to the better of the two.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
VOCABULARY = 50304  # of both models: what is compared is the step
LOWERED = {"avx2": {"MUSTER_INSTRUCTION_SET": "avx2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2",
                    "MKL_ENABLE_INSTRUCTIONS": "AVX2"}}


def run(command):
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"step.py: {' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def train(options, folder, place, precision, batch, sequence, steps, *more):
    run([options.muster, "train", options.config, f"--run.dir={place}", "--run.device=cpu",
         f"--run.precision={precision}", f"--run.threads={options.threads}", f"--data.path={folder}/data",
         f"--model.vocabulary={VOCABULARY}", f"--model.context={sequence}", "--model.dropout=0", f"--train.steps={steps}",
         f"--train.batch={batch}", f"--train.sequence={sequence}", "--train.shards=1", f"--train.micro_batch={batch}",
         "--train.reduction=fast", "--train.recompute=none", "--optimizer.clip=1", "--schedule.kind=constant",
         "--schedule.warmup=0", "--eval.every=0", *more])


def prepare(options, folder, precision, batch, sequence):
    """Tokens that every step reads whole, and a run of one step, from whose weights all start."""
    ids = random.Random(1).choices(range(VOCABULARY), k=batch * sequence + 1)
    (folder / "tokens.bin").write_bytes(struct.pack(f"<{len(ids)}H", *ids))
    run([options.muster, "prepare", folder / "tokens.bin", "--output", folder / "data", "--vocabulary", VOCABULARY,
         "--token-type", "u16", "--validation", 0])
    train(options, folder, folder / "start", precision, batch, sequence, 1)


def muster_step(options, folder, precision, batch, sequence):
    """First loss, and the tokens per second of each step but the first."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = pathlib.Path(name) / "run"
        shutil.copytree(folder / "start", place, ignore=shutil.ignore_patterns("checkpoints"))
        shutil.copytree(folder / "start/checkpoints", place / "checkpoints", copy_function=os.link)
        train(options, folder, place, precision, batch, sequence, options.steps + 2, "--checkpoint.every=0")
        records = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    return records[1]["loss"], [record["tokens_per_s"] for record in records[2:]]


def pytorch_step(options, folder, precision, batch, sequence, compiled):
    command = [sys.executable, ROOT / "tests/bench/pytorch_step.py", "--config", options.config, "--precision", precision,
               "--batch", batch, "--sequence", sequence, "--threads", options.threads, "--steps", options.steps,
               "--tokens", folder / "tokens.bin", "--weights", next((folder / "start/checkpoints").glob("step-*"))]
    result = json.loads(run(command + ["--compile"] * compiled))
    return result["loss"], [batch * sequence / seconds for seconds in result["seconds"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--muster", default=ROOT / "build/release/muster")
    parser.add_argument("--config", default=ROOT / "configs/gpt2-124m.toml")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="timed in each run, after one that is not")
    parser.add_argument("--instruction-set", choices=LOWERED, help="lowers both; by itself each takes the best")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", nargs="+", choices=("f32", "bf16"), default=("f32", "bf16"))
    parser.add_argument("--shape", nargs="+", default=("4x1024", "1x256"), help="batch x sequence")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args()

    os.environ.update(LOWERED.get(options.instruction_set, {}))

    contenders = {
        "muster": muster_step,
        "eager": lambda *of: pytorch_step(*of, compiled=False),
        "compiled": lambda *of: pytorch_step(*of, compiled=True)}
    if options.no_compile:
        del contenders["compiled"]
    print("precision  shape    " + "".join(f"{name:>10}" for name in contenders)
          + "   muster/eager  muster/best   first losses", flush=True)
    for precision in options.precision:
        for batch, sequence in (tuple(map(int, shape.split("x"))) for shape in options.shape):
            with tempfile.TemporaryDirectory() as name:
                compare(options, contenders, pathlib.Path(name), precision, batch, sequence)


def compare(options, contenders, folder, precision, batch, sequence):
    prepare(options, folder, precision, batch, sequence)
    speeds, losses = {name: [] for name in contenders}, {}
    for _ in range(options.rounds):
        for contender, step in contenders.items():
            losses[contender], measured = step(options, folder, precision, batch, sequence)
            speeds[contender] += measured
    median = {name: statistics.median(measured) for name, measured in speeds.items()}
    best = max(speed for name, speed in median.items() if name != "muster")
    print(f"{precision:<10} {f'{batch}x{sequence}':<8} "
          + "".join(f"{median[name]:>10.1f}" for name in contenders)
          + f"{median['muster'] / median['eager']:>14.2f}x{median['muster'] / best:>12.2f}x   "
          + " ".join(f"{loss:.4f}" for loss in losses.values()), flush=True)


if __name__ == "__main__":
    main()
