"""The families gpt and llama in plain PyTorch: the slow, obvious versions that Muster is compared with.

A model is a configuration (the keys of the section `model`) and a dictionary of parameters by Muster's names.
The precision is that of the parameters; bf16 is torch.autocast around a call.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class ModelConfig:
    family: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    context: int
    tied: bool
    qkv_bias: bool
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5

    @property
    def head_size(self):
        return self.width // self.heads

    @property
    def padded_vocabulary(self):
        return -(-self.vocabulary // 128) * 128


def parameter_shapes(config):
    """Names and shapes of all parameters. Rows of the token table beyond the vocabulary are zero."""
    width, hidden = config.width, config.feed_forward
    qkv = (config.heads + 2 * config.kv_heads) * config.head_size
    gpt = config.family == "gpt"
    shapes = {"embedding.token.weight": (config.padded_vocabulary, width)}

    def norm(name):
        shapes[f"{name}.weight"] = (width,)
        if gpt:
            shapes[f"{name}.bias"] = (width,)

    def linear(name, rows, columns, bias):
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)

    if gpt:
        shapes["embedding.position.weight"] = (config.context, width)
    for layer in range(config.layers):
        block = f"block.{layer}"
        norm(f"{block}.attention.norm")
        linear(f"{block}.attention.qkv", qkv, width, gpt or config.qkv_bias)
        linear(f"{block}.attention.projection", width, config.heads * config.head_size, gpt)
        norm(f"{block}.feed_forward.norm")
        if gpt:
            linear(f"{block}.feed_forward.up", hidden, width, True)
        else:
            linear(f"{block}.feed_forward.gate_up", 2 * hidden, width, False)
        linear(f"{block}.feed_forward.down", width, hidden, gpt)
    norm("norm")
    if not config.tied:
        linear("head", config.padded_vocabulary, width, False)
    return shapes


def document_numbers(document_starts, tokens):
    """For each of `tokens` positions the number of its document; entries at the end repeat `tokens`."""
    return torch.searchsorted(document_starts, torch.arange(tokens), right=True) - 1


def rotate(x, positions, base):
    """Rotary positions, half-split: column i pairs with column i + D/2. x [B, heads, T, D], positions [B, T]."""
    half = x.shape[-1] // 2
    frequency = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = positions[:, None, :, None].double() * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def attention(config, parameters, name, x, positions, mask):
    batch, length, _ = x.shape
    heads, kv_heads, size = config.heads, config.kv_heads, config.head_size
    qkv = F.linear(x, parameters[f"{name}.qkv.weight"], parameters.get(f"{name}.qkv.bias"))
    qkv = qkv.view(batch, length, heads + 2 * kv_heads, size).transpose(1, 2)
    q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=1)
    if config.family == "llama":
        q, k = (rotate(x, positions, config.rope_base) for x in (q, k))
    if kv_heads < heads:
        k, v = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    out = out.transpose(1, 2).reshape(batch, length, heads * size)
    return F.linear(out, parameters[f"{name}.projection.weight"], parameters.get(f"{name}.projection.bias"))


def feed_forward(config, parameters, name, x):
    if config.family == "gpt":
        hidden = F.linear(x, parameters[f"{name}.up.weight"], parameters[f"{name}.up.bias"])
        hidden = F.gelu(hidden, approximate="tanh")
    else:
        gate, up = F.linear(x, parameters[f"{name}.gate_up.weight"]).chunk(2, dim=-1)
        hidden = F.silu(gate) * up
    return F.linear(hidden, parameters[f"{name}.down.weight"], parameters.get(f"{name}.down.bias"))


def normalize(config, parameters, name, x):
    weight = parameters[f"{name}.weight"]
    if config.family == "gpt":
        return F.layer_norm(x, (config.width,), weight, parameters[f"{name}.bias"], config.norm_epsilon)
    return F.rms_norm(x, (config.width,), weight, config.norm_epsilon)


def logits(config, parameters, tokens, document_starts=None):
    """tokens [B, T], document_starts [B, n] or None (then a sequence is one document) -> [B, T, vocabulary]."""
    batch, length = tokens.shape
    positions, mask = torch.arange(length).expand(batch, length), None
    if document_starts is not None:
        numbers = torch.stack([document_numbers(starts, length) for starts in document_starts])
        positions = positions - torch.gather(document_starts, 1, numbers)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = (causal & (numbers[:, :, None] == numbers[:, None, :]))[:, None]

    x = F.embedding(tokens, parameters["embedding.token.weight"])
    if config.family == "gpt":
        x = x + F.embedding(positions, parameters["embedding.position.weight"])
    for layer in range(config.layers):
        block = f"block.{layer}"
        y = normalize(config, parameters, f"{block}.attention.norm", x)
        x = x + attention(config, parameters, f"{block}.attention", y, positions, mask)
        y = normalize(config, parameters, f"{block}.feed_forward.norm", x)
        x = x + feed_forward(config, parameters, f"{block}.feed_forward", y)
    x = normalize(config, parameters, "norm", x)
    head = parameters["embedding.token.weight" if config.tied else "head.weight"]
    return F.linear(x, head[: config.vocabulary])


def loss_sum(config, parameters, tokens, targets, document_starts=None):
    """Sum of the cross-entropies of all targets that are not -1."""
    scores = logits(config, parameters, tokens, document_starts)
    return F.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")
