#!/usr/bin/env python3
"""Writes values/CASE.h5: what PyTorch computes for small models, for tests of the model and of the trainer.

Usage: python3 tests/reference/make_values.py [CASE...]     (packages: tests/reference/requirements.txt)

A file holds
  configuration           attribute, JSON: the sections model, train, optimizer as in Muster's configuration,
                          `seed`, and for each parameter its name, shape, and how it starts: scale and offset
  tokens, targets         [step, sequence, position]; an ignored target is -1
  document_starts         [step, sequence, document], only with documents; entries at the end repeat the length
  loss, gradient_norm     f64 [step]: the mean over valid targets before the step's update, and the norm of its
                          gradient before clipping; training in f32
  gradient/NAME           of the first step's mean loss, computed in f64, stored as f32
  f32_error/NAME          f64 [1]: || gradient by PyTorch in f32 - gradient in f64 ||
  autocast_error/NAME     f64 [1]: the same under torch.autocast(bfloat16)
  parameter/NAME          after the last step, f32

Initial parameters are not stored: element i of a tensor is offset + scale * (uniform - 1/2), the uniform number
from word i % 4 of Philox 4x32-10 at counter (i // 4, 0, 0, fnv1a(name)) under key `seed`. Scales are powers of
two, so every correct implementation arrives at the same bits. Rows beyond the vocabulary are zero.
"""

import dataclasses
import json
import math
import pathlib
import sys

import h5py
import numpy as np
import torch

import bert
import model as decoder
from bert import BertModel
from model import ModelConfig

STEPS, BATCH, LENGTH = 20, 4, 257
IGNORED = 0.3
OPTIMIZER = {"lr": 1e-3, "betas": [0.9, 0.95], "epsilon": 1e-8, "weight_decay": 0.1, "clip": 0.5}
SEED = 20250917


@dataclasses.dataclass(frozen=True)
class Case:
    model: ModelConfig | BertModel
    documents: bool


def family_of(model):
    return bert if model.family == "bert" else decoder


# Few layers and narrow feed-forwards, so that the files stay small; the head sizes and groups are those that
# real models have and that spare no kernel.
CASES = {
    "gpt-tied-head80": Case(
        ModelConfig("gpt", layers=2, width=160, heads=2, kv_heads=2, feed_forward=96, vocabulary=120,
                    context=LENGTH, tied=True, qkv_bias=True), documents=True),
    "gpt-untied-grouped": Case(
        ModelConfig("gpt", layers=2, width=112, heads=7, kv_heads=1, feed_forward=96, vocabulary=150,
                    context=LENGTH, tied=False, qkv_bias=True), documents=False),
    "llama-tied-head80-grouped": Case(
        ModelConfig("llama", layers=1, width=560, heads=7, kv_heads=1, feed_forward=40, vocabulary=120,
                    context=LENGTH, tied=True, qkv_bias=False), documents=True),
    "llama-untied-bias": Case(
        ModelConfig("llama", layers=2, width=128, heads=2, kv_heads=1, feed_forward=72, vocabulary=150,
                    context=LENGTH, tied=False, qkv_bias=True, rope_base=500000.0), documents=False),
    "bert": Case(
        BertModel(layers=2, width=144, heads=2, kv_heads=2, feed_forward=96, vocabulary=120, context=LENGTH), documents=True),
}


def fnv1a(text):
    h = 2166136261
    for byte in text.encode():
        h = (h ^ byte) * 16777619 & 0xFFFFFFFF
    return h


def philox(counters, seed):
    """Philox 4x32-10 (Salmon et al., SC 2011): counters uint32 [n, 4] -> uint32 [n, 4]."""
    low = np.uint64(0xFFFFFFFF)
    c = [counters[:, i].astype(np.uint64) for i in range(4)]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), b & low,
             (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), a & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=1).astype(np.uint32)


def start_of(name, shape):
    """Scale and offset of a parameter's initial values."""
    if name.endswith("norm.weight"):
        return 0.25, 1.0
    if name.endswith(".bias"):
        return 0.125, 0.0
    if name.startswith("embedding."):
        return 0.25, 0.0
    # Keeps the variance of its input, about: a uniform number has the variance 1/12.
    return 2.0 ** round(math.log2(math.sqrt(12 / shape[1]))), 0.0


def initial_values(name, shape, vocabulary, seed):
    scale, offset = start_of(name, shape)
    count = math.prod(shape)
    counters = np.zeros((-(-count // 4), 4), dtype=np.uint32)
    counters[:, 0] = np.arange(len(counters))
    counters[:, 3] = fnv1a(name)
    bits = philox(counters, seed).reshape(-1)[:count]
    uniform = (bits >> 8).astype(np.float32) * np.float32(2.0**-24)
    values = (np.float32(offset) + np.float32(scale) * (uniform - np.float32(0.5))).reshape(shape)
    if name in ("embedding.token.weight", "head.weight"):
        values[vocabulary:] = 0
    return torch.from_numpy(values)


def make_data(case, random):
    """Tokens that a model can learn a little about: with probability 3/4 the next follows from the last."""
    vocabulary = case.model.vocabulary
    shape = (STEPS, BATCH, LENGTH)
    text = random.integers(vocabulary, size=(STEPS, BATCH, LENGTH + 1))
    follows = random.random(text.shape) < 0.75
    for i in range(1, LENGTH + 1):
        text[..., i] = np.where(follows[..., i], (5 * text[..., i - 1] + 3) % vocabulary, text[..., i])
    tokens, targets = text[..., :-1], text[..., 1:].copy()
    # Sequences differ in how many targets count, so an average of averages would show.
    rates = IGNORED * np.linspace(0.4, 1.6, BATCH)
    targets[random.random(shape) < rates[None, :, None]] = -1
    starts = None
    if case.documents:
        # One to six documents in a sequence, some of one token; a border hides the target that lies across it.
        starts = np.full((STEPS, BATCH, 7), LENGTH)
        for step in range(STEPS):
            for sequence in range(BATCH):
                borders = np.sort(random.choice(np.arange(1, LENGTH), random.integers(6), replace=False))
                if len(borders) > 1:
                    borders[1] = borders[0] + 1
                    borders = np.unique(borders)
                starts[step, sequence, 0] = 0
                starts[step, sequence, 1 : 1 + len(borders)] = borders
                targets[step, sequence, borders - 1] = -1
    return tokens, targets, starts


class Batches:
    """The steps' micro-batches of one sequence each."""

    def __init__(self, tokens, targets, starts):
        self.tokens, self.targets = torch.from_numpy(tokens), torch.from_numpy(targets)
        self.starts = None if starts is None else torch.from_numpy(starts)

    def mean_loss_backward(self, model, parameters, step, autocast=False):
        """Leaves the gradient of the step's mean loss in the parameters; returns the loss."""
        valid = int((self.targets[step] >= 0).sum())
        total = 0.0
        for i in range(BATCH):
            starts = None if self.starts is None else self.starts[step, i : i + 1]
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = family_of(model).loss_sum(model, parameters, self.tokens[step, i : i + 1],
                                                 self.targets[step, i : i + 1], starts)
            (loss / valid).backward()
            total += loss.item()
        return total / valid


def leaves(values, dtype):
    return {name: value.to(dtype, copy=True).requires_grad_() for name, value in values.items()}


def train(model, values, batches, dtype):
    """The losses and gradient norms of the steps, and the parameters after them."""
    parameters = leaves(values, dtype)
    matrices = [p for p in parameters.values() if p.ndim > 1]
    vectors = [p for p in parameters.values() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": OPTIMIZER["weight_decay"]},
         {"params": vectors, "weight_decay": 0.0}],
        lr=OPTIMIZER["lr"], betas=tuple(OPTIMIZER["betas"]), eps=OPTIMIZER["epsilon"])
    losses, norms = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        losses.append(batches.mean_loss_backward(model, parameters, step))
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), OPTIMIZER["clip"]).item())
        optimizer.step()
    return losses, norms, {name: p.detach() for name, p in parameters.items()}


def first_gradients(model, values, batches, dtype, autocast=False):
    parameters = leaves(values, dtype)
    batches.mean_loss_backward(model, parameters, 0, autocast)
    return {name: p.grad.double() for name, p in parameters.items()}


def distance(a, b):
    return torch.linalg.vector_norm(a.double() - b.double()).item()


def write_case(name, case, folder):
    model = case.model
    shapes = family_of(model).parameter_shapes(model)
    values = {key: initial_values(key, shape, model.vocabulary, SEED) for key, shape in shapes.items()}
    tokens, targets, starts = make_data(case, np.random.default_rng(SEED + fnv1a(name)))
    batches = Batches(tokens, targets, starts)

    exact = first_gradients(model, values, batches, torch.float64)
    single = first_gradients(model, values, batches, torch.float32)
    autocast = first_gradients(model, values, batches, torch.float32, autocast=True)
    losses, norms, trained = train(model, values, batches, torch.float32)
    _, _, trained_exactly = train(model, values, batches, torch.float64)

    assert min(norms) > OPTIMIZER["clip"], "clipping must act in every step"
    parameters = [{"name": key, "shape": shape, "scale": start_of(key, shape)[0], "offset": start_of(key, shape)[1]}
                  for key, shape in shapes.items()]
    configuration = {
        "model": dataclasses.asdict(model), "optimizer": OPTIMIZER, "seed": SEED, "parameters": parameters,
        "train": {"steps": STEPS, "batch": BATCH, "sequence": LENGTH, "documents": case.documents}}
    path = folder / f"{name}.h5"
    with h5py.File(path, "w") as file:
        file.attrs["configuration"] = np.bytes_(json.dumps(configuration))
        file.attrs["pytorch"] = np.bytes_(torch.__version__)

        def store(key, array, dtype):
            # One-dimensional, as Muster's reader wants it; a filter costs more than it saves on a few numbers.
            data = np.asarray(array).reshape(-1).astype(dtype)
            filters = {"compression": "gzip", "shuffle": True} if data.size > 1000 else {}
            file.create_dataset(key, data=data, **filters)

        store("tokens", tokens, "u2")
        store("targets", targets, "i4")
        if starts is not None:
            store("document_starts", starts, "i4")
        store("loss", losses, "f8")
        store("gradient_norm", norms, "f8")
        for key in shapes:
            store(f"gradient/{key}", exact[key].numpy(), "f4")
            store(f"f32_error/{key}", [distance(single[key], exact[key])], "f8")
            store(f"autocast_error/{key}", [distance(autocast[key], exact[key])], "f8")
            store(f"parameter/{key}", trained[key].numpy(), "f4")

    # How far PyTorch's own rounding takes it: the tests' tolerances must lie well above.
    total = math.sqrt(sum(g.square().sum().item() for g in exact.values()))

    def gradient_error(gradients):
        return max((distance(gradients[key], exact[key]) / max(exact[key].norm().item(), 1e-6 * total), key)
                   for key in shapes)

    def update_error(key):
        rows = updates_that_count(model, key, len(values[key]))
        return distance(trained[key][rows], trained_exactly[key][rows]) / distance(
            values[key][rows], trained_exactly[key][rows])

    print(f"{name}: {path.stat().st_size / 1e6:.2f} MB, loss {losses[0]:.3f} .. {losses[-1]:.3f}, "
          f"gradient norm {max(norms):.2f} .. {min(norms):.2f}")
    for what, (error, key) in {
            "gradient, f32": gradient_error(single), "gradient, autocast": gradient_error(autocast),
            f"update of {STEPS} steps, f32": max((update_error(key), key) for key in shapes)}.items():
        print(f"    {what}: at most {error:.1e} from f64 ({key})")


def updates_that_count(model, key, rows):
    """All rows but the biases of keys. Those shift every score of a query alike, so without rotation their
    gradient is zero (with it, small in the slow pairs), and AdamW follows the sign of rounding noise."""
    if not key.endswith("attention.qkv.bias"):
        return slice(None)
    counted = torch.ones(rows, dtype=torch.bool)
    first = model.heads * model.head_size
    counted[first : first + model.kv_heads * model.head_size] = False
    return counted


def main():
    torch.set_num_threads(1)
    folder = pathlib.Path(__file__).parent / "values"
    folder.mkdir(exist_ok=True)
    for name in sys.argv[1:] or CASES:
        if name not in CASES:
            sys.exit(f"make_values.py: no case {name}; there are {', '.join(CASES)}")
        write_case(name, CASES[name], folder)


if __name__ == "__main__":
    main()
