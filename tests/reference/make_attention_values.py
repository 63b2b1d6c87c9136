#!/usr/bin/env python3
"""Writes values/attention-segments.h5: what PyTorch's scaled_dot_product_attention computes under the masks of segments.

Usage: python3 tests/reference/make_attention_values.py     (packages: tests/reference/requirements.txt)

A group for each case holds
  configuration           attribute, JSON: heads, kv_heads, head_size, causal, query_starts, key_starts
  o, d_q, d_kv            outputs [T_q, H D], and the gradients of queries and of keys and values [T_k, 2 H_kv D], in f64,
                          stored as f32
  f32_error/NAME          f64 [1]: || NAME by PyTorch in f32 - in f64 ||
  bf16_error/NAME         f64 [1]: the same with everything in bf16

Inputs are not stored: element i of q, kv and d_o is 4 * (uniform - 1/2), drawn as make_values.py draws parameters, under the
name CASE.TENSOR.
"""

import json
import math
import pathlib

import h5py
import numpy as np
import torch

from make_values import SEED, distance, fnv1a, philox

# Lengths of queries and of keys, segment by segment. Of no keys, of one query, of no queries, of many; longer and shorter.
CASES = {
    "cross": dict(heads=7, kv_heads=1, head_size=64, causal=False, queries=[1, 12, 5, 0, 30], keys=[70, 3, 0, 20, 33]),
    "cross-head80": dict(heads=2, kv_heads=2, head_size=80, causal=False, queries=[40, 1, 8], keys=[33, 65, 1]),
    "causal": dict(heads=4, kv_heads=2, head_size=96, causal=True, queries=[1, 36, 10], keys=[1, 36, 10]),
    "causal-unequal": dict(heads=2, kv_heads=1, head_size=128, causal=True, queries=[20, 7, 3], keys=[9, 40, 0]),
}


def uniform(name, shape):
    count = math.prod(shape)
    counters = np.zeros((-(-count // 4), 4), dtype=np.uint32)
    counters[:, 0] = np.arange(len(counters))
    counters[:, 3] = fnv1a(name)
    bits = philox(counters, SEED).reshape(-1)[:count]
    values = np.float32(4) * ((bits >> 8).astype(np.float32) * np.float32(2.0**-24) - np.float32(0.5))
    return torch.from_numpy(values.reshape(shape))


def seen(case):
    """[T_q, T_k]: which keys a query sees."""
    segment = {side: torch.repeat_interleave(torch.arange(len(case[side])), torch.tensor(case[side]))
               for side in ("queries", "keys")}
    place = {side: torch.cat([torch.arange(length) for length in case[side]]) for side in ("queries", "keys")}
    mask = segment["queries"][:, None] == segment["keys"][None, :]
    if case["causal"]:
        mask &= place["keys"][None, :] <= place["queries"][:, None]
    return mask


def attend(case, inputs, dtype):
    """o, d_q, d_kv as rows."""
    heads, kv_heads, size = case["heads"], case["kv_heads"], case["head_size"]
    q, kv = (inputs[key].to(dtype, copy=True).requires_grad_() for key in ("q", "kv"))

    def split(rows, count):
        return rows.reshape(len(rows), count, size).transpose(0, 1)[None]

    k, v = kv.split(kv_heads * size, dim=1)
    o = torch.nn.functional.scaled_dot_product_attention(
        split(q, heads), split(k, kv_heads), split(v, kv_heads), attn_mask=seen(case), enable_gqa=heads != kv_heads)
    o = o[0].transpose(0, 1).reshape(len(q), heads * size)
    o.backward(inputs["d_o"].to(dtype))
    return {"o": o.detach(), "d_q": q.grad, "d_kv": kv.grad}


def main():
    torch.set_num_threads(1)
    path = pathlib.Path(__file__).parent / "values" / "attention-segments.h5"
    with h5py.File(path, "w") as file:
        file.attrs["pytorch"] = np.bytes_(torch.__version__)
        for name, case in CASES.items():
            heads, kv_heads, size = case["heads"], case["kv_heads"], case["head_size"]
            queries, keys = sum(case["queries"]), sum(case["keys"])
            inputs = {"q": uniform(f"{name}.q", (queries, heads * size)),
                      "kv": uniform(f"{name}.kv", (keys, 2 * kv_heads * size)),
                      "d_o": uniform(f"{name}.d_o", (queries, heads * size))}
            exact, single, half = (attend(case, inputs, dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16))
            starts = {f"{side}_starts": np.cumsum([0] + case[plural]).tolist()
                      for side, plural in (("query", "queries"), ("key", "keys"))}
            group = file.create_group(name)
            group.attrs["configuration"] = np.bytes_(json.dumps(
                {key: case[key] for key in ("heads", "kv_heads", "head_size", "causal")} | starts | {"seed": SEED}))
            for key, value in exact.items():
                assert value.isfinite().all(), f"{name}/{key}"
                group.create_dataset(key, data=value.numpy().reshape(-1).astype("f4"), compression="gzip", shuffle=True)
                group.create_dataset(f"f32_error/{key}", data=[distance(single[key], value)])
                group.create_dataset(f"bf16_error/{key}", data=[distance(half[key], value)])
                print(f"{name}/{key}: norm {value.norm():.3g}, f32 {distance(single[key], value) / value.norm():.1e}, "
                      f"bf16 {distance(half[key], value) / value.norm():.1e}")


if __name__ == "__main__":
    main()
