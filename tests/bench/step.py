#!/usr/bin/env python3
"""Compares the training step of Muster with PyTorch's: GPT-2 124M, clipping and AdamW included, on this CPU.

Usage: python3 tests/bench/step.py [--rounds 3] [--steps 5] [--precision f32 bf16] [--shape 4x1024 1x256]

Runs of Muster, PyTorch eager and PyTorch compiled alternate, so that what else goes on in the machine meets all
alike; both read the same token ids, and the first loss, ln(50304) = 10.8 for fresh weights, shows that both do the
whole work. Prints the median tokens per second of all steps of all rounds, and Muster's ratio to PyTorch eager and
to the better of the two.
"""

import argparse
import json
import pathlib
import random
import statistics
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
VOCABULARY = 50304


def run(command):
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"step.py: {' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def prepare(muster, folder, tokens):
    ids = random.Random(1).choices(range(VOCABULARY), k=tokens)
    (folder / "tokens.bin").write_bytes(struct.pack(f"<{tokens}H", *ids))
    run([muster, "prepare", folder / "tokens.bin", "--output", folder / "data", "--vocabulary", VOCABULARY,
         "--token-type", "u16", "--validation", 0])


def muster_step(options, folder, precision, batch, sequence):
    """First loss, and the tokens per second of each step but the first."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        run([options.muster, "train", "configs/gpt2-124m.toml", f"--run.dir={place}/run", "--run.device=cpu",
             f"--run.precision={precision}", f"--run.threads={options.threads}", f"--data.path={folder}/data",
             f"--model.vocabulary={VOCABULARY}", "--model.context=1024", "--model.dropout=0",
             f"--train.steps={options.steps + 1}", f"--train.batch={batch}", f"--train.sequence={sequence}",
             "--train.shards=1", f"--train.micro_batch={batch}", "--train.reduction=fast",
             "--train.recompute=none", "--optimizer.clip=1", "--schedule.warmup=0", "--eval.every=0",
             "--checkpoint.every=0"])
        records = [json.loads(line) for line in (pathlib.Path(place) / "run/metrics.jsonl").read_text().splitlines()]
    return records[0]["loss"], [record["tokens_per_s"] for record in records[1:]]


def pytorch_step(options, folder, precision, batch, sequence, compiled):
    command = [sys.executable, ROOT / "tests/bench/pytorch_step.py", "--precision", precision, "--batch", batch,
               "--sequence", sequence, "--threads", options.threads, "--steps", options.steps, "--tokens",
               folder / "tokens.bin"]
    result = json.loads(run(command + ["--compile"] * compiled))
    return result["loss"], [batch * sequence / seconds for seconds in result["seconds"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--muster", default=ROOT / "build/release/muster")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="timed in each run, after one that is not")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", nargs="+", choices=("f32", "bf16"), default=("f32", "bf16"))
    parser.add_argument("--shape", nargs="+", default=("4x1024", "1x256"), help="batch x sequence")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        shapes = [tuple(map(int, shape.split("x"))) for shape in options.shape]
        prepare(options.muster, folder, max(b * t for b, t in shapes) * (options.steps + 2) + 1)
        contenders = {
            "muster": muster_step,
            "eager": lambda *of: pytorch_step(*of, compiled=False),
            "compiled": lambda *of: pytorch_step(*of, compiled=True)}
        if options.no_compile:
            del contenders["compiled"]
        print("precision  shape    " + "".join(f"{name:>10}" for name in contenders)
              + "   muster/eager  muster/best   first losses", flush=True)
        for precision in options.precision:
            for batch, sequence in shapes:
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
                      + " ".join(f"{loss:.3f}" for loss in losses.values()), flush=True)


if __name__ == "__main__":
    main()
