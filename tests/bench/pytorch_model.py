"""The families gpt and llama as one writes them for speed in PyTorch: what Muster's step is measured against.

The same parameters and values as tests/reference/model.py, with what makes PyTorch fast: fused causal attention with
grouped queries, tables of rotary positions made once, nothing that keeps torch.compile from taking the model whole.
"""

import pathlib
import sys
import tomllib

import torch
import torch.nn.functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "reference"))
from model import ModelConfig, normalize, parameter_shapes


def read_config(path, vocabulary, context):
    """The model of a configuration file."""
    model = tomllib.loads(pathlib.Path(path).read_text())["model"]
    width, family = model["width"], model["family"]
    hidden = model.get("feed_forward") or (4 * width if family == "gpt" else -(-8 * width // (3 * 128)) * 128)
    return ModelConfig(family, model["layers"], width, model["heads"], model.get("kv_heads") or model["heads"], hidden,
                       vocabulary or model["vocabulary"], context, model.get("tied", True), model.get("qkv_bias", family == "gpt"),
                       model.get("rope_base", 10000.0), model.get("norm_epsilon", 1e-5))


def make_parameters(config, device):
    parameters = {}
    for name, shape in parameter_shapes(config).items():
        if len(shape) > 1:
            value = torch.randn(shape, device=device) * 0.02
        else:
            value = (torch.ones if name.endswith("weight") else torch.zeros)(shape, device=device)
        parameters[name] = value.requires_grad_()
    return parameters


def rotary_tables(config, length, device):
    half = config.head_size // 2
    frequency = config.rope_base ** (-torch.arange(half, dtype=torch.float64, device=device) / half)
    angle = torch.arange(length, device=device)[:, None] * frequency
    return angle.cos().float(), angle.sin().float()


def rotate(x, tables):
    cos, sin = (table.to(x.dtype) for table in tables)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def loss_sum(config, parameters, tables, tokens, targets):
    """Sum of the cross-entropies of all targets; tables: of rotary positions, for a llama."""
    batch, length = tokens.shape
    heads, kv_heads, size = config.heads, config.kv_heads, config.head_size
    gpt = config.family == "gpt"

    def linear(name, x):
        return F.linear(x, parameters[f"{name}.weight"], parameters.get(f"{name}.bias"))

    x = F.embedding(tokens, parameters["embedding.token.weight"])
    if gpt:
        x = x + parameters["embedding.position.weight"][:length]
    for layer in range(config.layers):
        block = f"block.{layer}"
        qkv = linear(f"{block}.attention.qkv", normalize(config, parameters, f"{block}.attention.norm", x))
        qkv = qkv.view(batch, length, heads + 2 * kv_heads, size).transpose(1, 2)
        q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=1)
        if not gpt:
            q, k = rotate(q, tables), rotate(k, tables)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=kv_heads < heads)
        x = x + linear(f"{block}.attention.projection", y.transpose(1, 2).reshape(batch, length, heads * size))
        y = normalize(config, parameters, f"{block}.feed_forward.norm", x)
        if gpt:
            y = F.gelu(linear(f"{block}.feed_forward.up", y), approximate="tanh")
        else:
            gate, up = linear(f"{block}.feed_forward.gate_up", y).chunk(2, dim=-1)
            y = F.silu(gate) * up
        x = x + linear(f"{block}.feed_forward.down", y)
    x = normalize(config, parameters, "norm", x)
    head = parameters["embedding.token.weight" if config.tied else "head.weight"]
    scores = F.linear(x, head[: config.vocabulary])
    return F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="sum")
