"""The family bert by Hugging Face's BertForMaskedLM, which Muster is compared with; the bias of its logits stays zero.

A model is a configuration (the keys of the section `model`) and a dictionary of parameters by Muster's names.
"""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from transformers import BertConfig, BertForMaskedLM

from model import document_numbers


@dataclass(frozen=True)
class BertModel:
    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    context: int
    token_types: int = 2
    norm_epsilon: float = 1e-12
    family: str = "bert"
    # What Muster's reader of cases wants of every model.
    tied: bool = True
    qkv_bias: bool = False
    rope_base: float = 10000.0

    @property
    def head_size(self):
        return self.width // self.heads

    @property
    def padded_vocabulary(self):
        return -(-self.vocabulary // 128) * 128


def parameter_shapes(config):
    """Names and shapes of all parameters. Rows of the token table beyond the vocabulary are zero."""
    width, hidden = config.width, config.feed_forward
    shapes = {"embedding.token.weight": (config.padded_vocabulary, width),
              "embedding.position.weight": (config.context, width),
              "embedding.type.weight": (config.token_types, width)}

    def linear(name, rows, columns):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)

    def norm(name):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (width,), (width,)

    norm("embedding.norm")
    for layer in range(config.layers):
        attention, feed_forward = f"block.{layer}.attention", f"block.{layer}.feed_forward"
        linear(f"{attention}.qkv", 3 * width, width)
        linear(f"{attention}.projection", width, width)
        norm(f"{attention}.norm")
        linear(f"{feed_forward}.up", hidden, width)
        linear(f"{feed_forward}.down", width, hidden)
        norm(f"{feed_forward}.norm")
    linear("head.dense", width, width)
    norm("head.norm")
    return shapes


@cache
def module(config):
    return BertForMaskedLM(BertConfig(
        vocab_size=config.vocabulary, hidden_size=config.width, num_hidden_layers=config.layers,
        num_attention_heads=config.heads, intermediate_size=config.feed_forward, hidden_act="gelu",
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=config.context,
        type_vocab_size=config.token_types, pad_token_id=None, layer_norm_eps=config.norm_epsilon, attn_implementation="eager"))


def named_as_in_transformers(config, parameters):
    table = parameters["embedding.token.weight"][: config.vocabulary]
    named = {"bert.embeddings.word_embeddings.weight": table, "cls.predictions.decoder.weight": table}
    bias = torch.zeros(config.vocabulary, dtype=table.dtype)
    named["cls.predictions.bias"] = named["cls.predictions.decoder.bias"] = bias
    named["bert.embeddings.position_embeddings.weight"] = parameters["embedding.position.weight"]
    named["bert.embeddings.token_type_embeddings.weight"] = parameters["embedding.type.weight"]

    def put(theirs, ours):
        for part in ("weight", "bias"):
            named[f"{theirs}.{part}"] = parameters[f"{ours}.{part}"]

    put("bert.embeddings.LayerNorm", "embedding.norm")
    for layer in range(config.layers):
        theirs, ours = f"bert.encoder.layer.{layer}", f"block.{layer}"
        for part in ("weight", "bias"):
            parts = parameters[f"{ours}.attention.qkv.{part}"].chunk(3)
            for name, value in zip(("query", "key", "value"), parts):
                named[f"{theirs}.attention.self.{name}.{part}"] = value
        put(f"{theirs}.attention.output.dense", f"{ours}.attention.projection")
        put(f"{theirs}.attention.output.LayerNorm", f"{ours}.attention.norm")
        put(f"{theirs}.intermediate.dense", f"{ours}.feed_forward.up")
        put(f"{theirs}.output.dense", f"{ours}.feed_forward.down")
        put(f"{theirs}.output.LayerNorm", f"{ours}.feed_forward.norm")
    put("cls.predictions.transform.dense", "head.dense")
    put("cls.predictions.transform.LayerNorm", "head.norm")
    return named


def loss_sum(config, parameters, tokens, targets, document_starts=None):
    """Sum of the cross-entropies of all targets that are not -1."""
    batch, length = tokens.shape
    positions, mask = torch.arange(length).expand(batch, length), None
    dtype = parameters["embedding.token.weight"].dtype
    if document_starts is not None:
        numbers = torch.stack([document_numbers(starts, length) for starts in document_starts])
        positions = positions - torch.gather(document_starts, 1, numbers)
        apart = (numbers[:, :, None] != numbers[:, None, :])[:, None]
        mask = torch.zeros(batch, 1, length, length, dtype=dtype).masked_fill(apart, torch.finfo(dtype).min)
    scores = torch.func.functional_call(
        module(config).to(dtype), named_as_in_transformers(config, parameters),
        kwargs={"input_ids": tokens, "token_type_ids": torch.zeros_like(tokens), "position_ids": positions,
                "attention_mask": mask}).logits
    return F.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")
