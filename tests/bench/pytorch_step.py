#!/usr/bin/env python3
"""Times training steps of GPT-2 124M in PyTorch on the CPU: forward, backward, clipping and AdamW.

Prints one JSON object: what ran, the seconds of each step, and the median step's tokens per second. The model is
the one of tests/reference, which uses the fast paths that PyTorch has: fused causal attention without a mask,
fused AdamW, foreach clipping, cross_entropy, and with --compile all of the model through torch.compile.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "reference"))
from model import ModelConfig, loss_sum, parameter_shapes

GPT2 = ModelConfig("gpt", layers=12, width=768, heads=12, kv_heads=12, feed_forward=3072, vocabulary=50304,
                   context=1024, tied=True, qkv_bias=True)


def make_parameters(config):
    parameters = {}
    for name, shape in parameter_shapes(config).items():
        if len(shape) > 1:
            value = torch.randn(shape) * 0.02
        else:
            value = torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
        parameters[name] = value.requires_grad_()
    return parameters


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--precision", choices=("f32", "bf16"), default="f32", help="bf16: torch.autocast")
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--sequence", type=int, default=1024)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--steps", type=int, default=5, help="steps timed, after one that is not")
    options.add_argument("--compile", action="store_true")
    options.add_argument("--tokens", help="file of 16-bit token ids to train on; random ids without it")
    chosen = options.parse_args()

    torch.manual_seed(1)
    torch.set_num_threads(chosen.threads)
    parameters = make_parameters(GPT2)
    matrices = [p for p in parameters.values() if p.ndim > 1]
    vectors = [p for p in parameters.values() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=3e-4, betas=(0.9, 0.95), fused=True)
    loss_function = torch.compile(loss_sum) if chosen.compile else loss_sum

    size = chosen.batch * chosen.sequence
    text = torch.randint(GPT2.vocabulary, (size + 1,))
    if chosen.tokens:
        text = torch.from_numpy(np.fromfile(chosen.tokens, dtype="<u2").astype(np.int64))

    def step(number):
        start = number * size % max(1, len(text) - size)
        tokens = text[start : start + size].view(chosen.batch, chosen.sequence)
        targets = text[start + 1 : start + size + 1].view(chosen.batch, chosen.sequence)
        with torch.autocast("cpu", torch.bfloat16, enabled=chosen.precision == "bf16"):
            loss = loss_function(GPT2, parameters, tokens, targets) / size
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    first_loss = step(0)
    seconds = []
    for number in range(1, chosen.steps + 1):
        start = time.perf_counter()
        step(number)
        seconds.append(time.perf_counter() - start)
    print(json.dumps({**vars(chosen), "pytorch": str(torch.__version__), "loss": first_loss, "seconds": seconds,
                      "tokens_per_s": size / statistics.median(seconds)}))


if __name__ == "__main__":
    main()
