#!/usr/bin/env python3
"""Times training steps of a configuration's model in PyTorch: forward, backward, clipping and AdamW.

Prints one JSON object: what ran, the seconds of each step, and the median step's tokens per second. The model is the
one of pytorch_model.py; AdamW is fused, clipping foreach, and --compile takes loss and gradients through torch.compile.
On a GPU, weights stay in f32 and torch.autocast casts them, the batch is summed over --accumulate micro-batches, and
steps are timed by the device's events.
"""

import argparse
import json
import pathlib
import statistics
import time

import h5py
import numpy as np
import torch

from pytorch_model import loss_sum, make_parameters, read_config, rotary_tables

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load_weights(checkpoint, parameters):
    """Fills the parameters from the files of a checkpoint (docs/formats.md)."""
    with torch.no_grad():
        for path in pathlib.Path(checkpoint).glob("rank-*.h5"):
            with h5py.File(path) as file:
                for name, parameter in parameters.items():
                    part = file[f"master/{name}"]
                    flat, values = parameter.view(-1), torch.from_numpy(part[...]).flatten()
                    for begin, end in zip(part.attrs["begin"], part.attrs["end"]):
                        flat[begin:end], values = values[: end - begin], values[end - begin :]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--config", default=str(ROOT / "configs/gpt2-124m.toml"))
    options.add_argument("--vocabulary", type=int, default=50304, help="0: the configuration's")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--precision", choices=("f32", "bf16"), default="f32", help="bf16: torch.autocast")
    options.add_argument("--batch", type=int, default=4, help="sequences of a micro-batch")
    options.add_argument("--accumulate", type=int, default=1, help="micro-batches of a step")
    options.add_argument("--sequence", type=int, default=1024)
    options.add_argument("--threads", type=int, default=2, help="on the CPU")
    options.add_argument("--steps", type=int, default=5, help="steps timed, after --warmup that are not")
    options.add_argument("--warmup", type=int, default=1)
    options.add_argument("--until", type=float, help="seconds since 1970: no more steps once it has passed, but one")
    options.add_argument("--compile", action="store_true")
    options.add_argument("--tokens", help="file of token ids to train on; random ids without it")
    options.add_argument("--weights", help="folder of a checkpoint of Muster to start from; random weights without it")
    options.add_argument("--token-type", choices=("u16", "u32"), default="u16")
    chosen = options.parse_args()

    torch.manual_seed(1)
    cuda = chosen.device == "cuda"
    if not cuda:
        torch.set_num_threads(chosen.threads)
    config = read_config(chosen.config, chosen.vocabulary, chosen.sequence)
    parameters = make_parameters(config, chosen.device)
    if chosen.weights:
        load_weights(chosen.weights, parameters)
    tables = rotary_tables(config, chosen.sequence, chosen.device) if config.family == "llama" else None
    matrices = [p for p in parameters.values() if p.ndim > 1]
    vectors = [p for p in parameters.values() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=3e-4, betas=(0.9, 0.95), fused=True)
    loss_function = torch.compile(loss_sum) if chosen.compile else loss_sum

    size = chosen.batch * chosen.sequence
    total = size * chosen.accumulate
    text = torch.randint(config.vocabulary, (total + 1,))
    if chosen.tokens:
        text = torch.from_numpy(np.fromfile(chosen.tokens, dtype="<u2" if chosen.token_type == "u16" else "<u4").astype(np.int64))
    text = text.to(chosen.device)

    def step(number):
        """The mean loss, on the device."""
        loss_of_step = torch.zeros((), device=chosen.device)
        for micro_batch in range(chosen.accumulate):
            start = (number * total + micro_batch * size) % max(1, len(text) - size)
            tokens = text[start : start + size].view(chosen.batch, chosen.sequence)
            targets = text[start + 1 : start + size + 1].view(chosen.batch, chosen.sequence)
            with torch.autocast(chosen.device, torch.bfloat16, enabled=chosen.precision == "bf16"):
                loss = loss_function(config, parameters, tables, tokens, targets) / total
            loss.backward()
            loss_of_step += loss.detach()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss_of_step

    start = time.perf_counter()
    first_loss = step(0).item()
    for number in range(1, chosen.warmup):
        step(number)
    if cuda:
        torch.cuda.synchronize()
    first_seconds = time.perf_counter() - start

    numbers = range(chosen.warmup, chosen.warmup + chosen.steps)
    if cuda:
        events = [torch.cuda.Event(enable_timing=True)]
        events[0].record()
        for number in numbers:
            step(number)
            events.append(torch.cuda.Event(enable_timing=True))
            events[-1].record()
            if chosen.until:
                events[-2].synchronize()  # the GPU has a step to do meanwhile
                if time.time() > chosen.until:
                    break
        torch.cuda.synchronize()
        seconds = [a.elapsed_time(b) / 1e3 for a, b in zip(events, events[1:])]
    else:
        seconds = []
        for number in numbers:
            start = time.perf_counter()
            step(number).item()
            seconds.append(time.perf_counter() - start)
            if chosen.until and time.time() > chosen.until:
                break

    result = {**vars(chosen), "pytorch": str(torch.__version__), "loss": first_loss, "first_seconds": first_seconds,
              "seconds": seconds, "tokens_per_s": total / statistics.median(seconds) if seconds else None}
    if cuda:
        result |= {"gpu": torch.cuda.get_device_name(), "peak_bytes": torch.cuda.max_memory_allocated()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
