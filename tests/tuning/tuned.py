"""Tiny networks of every architecture, with the `Target` that tuning methods get."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jaxvalues.config import TuningConfig
from jaxvalues.models import build_causal_lm, build_model, build_t5, group
from jaxvalues.models.architectures import ARCHITECTURES
from jaxvalues.models.checkpoints.conversion import Table
from jaxvalues.models.heads.causal_lm import causal_lm_table
from jaxvalues.models.layers.layout import Grouping
from jaxvalues.models.loading import abstract_params
from jaxvalues.models.model_types import CAUSAL
from jaxvalues.models.t5.checkpoint import t5_table
from jaxvalues.tuning import Stack, Target, Tuning, make_tuning

V, D, F, L, N, K, H, C = 90, 64, 96, 2, 4, 2, 16, 20
SIZES = {
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": L,
    "num_attention_heads": N,
    "max_position_embeddings": 40,
}
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
CONFIGS: dict[str, dict[str, Any]] = {
    "roberta": {**SIZES, "model_type": "roberta", "type_vocab_size": 1, "pad_token_id": 1},
    "deberta": {**SIZES, **RELATIVE, "model_type": "deberta", "type_vocab_size": 0, "max_relative_positions": -1},
    "deberta-v2": {
        **SIZES, **RELATIVE, "model_type": "deberta-v2", "type_vocab_size": 0, "max_relative_positions": -1,
        "position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm", "conv_kernel_size": 3,
        "conv_act": "gelu",
    },
    "mpnet": {**SIZES, "model_type": "mpnet", "pad_token_id": 1},
    "gpt2": {"model_type": "gpt2", "vocab_size": V, "n_embd": D, "n_inner": F, "n_layer": L, "n_head": N,
             "n_positions": 40},
    "llama": {**SIZES, "model_type": "llama", "num_key_value_heads": K},
    "t5": {"model_type": "t5", "vocab_size": V, "d_model": D, "d_ff": F, "d_kv": 24, "num_heads": N,
           "num_layers": L, "num_decoder_layers": 3},
}  # fmt: skip
KINDS = sorted(CONFIGS)
# PEFT has no default targets for MPNet; these are RoBERTa's, by MPNet's names.
PEFT_TARGETS = {
    "lora": {"target_modules": ["q", "v"]},
    "ia3": {"target_modules": ["k", "v", "o", "output.dense"], "feedforward_modules": ["o", "output.dense"]},
}
NEW = {
    "head": {"kernel": np.ones((D, C), np.float32), "bias": np.zeros(C, np.float32)},
    "projection": {"out": {"kernel": np.ones((D, 8), np.float32), "bias": np.zeros(8, np.float32)}},
}
NEW_SIZE = D * C + C + D * 8 + 8
KEY = jax.random.key(7)


class System(NamedTuple):
    """A network, its parameters, the grouping of their layers, its `Target` and its checkpoint table."""

    module: nn.Module
    params: dict[str, Any]
    segments: Grouping
    target: Target
    table: Table


@functools.cache
def build(kind: str, scan: bool = False, num_layers: int = L, boundary: int = 0) -> System:
    """Build a tiny network: encoders with a new head and a projection, GPT-2, Llama and T5 as language models.

    Weights are the same scanned and unrolled. `num_layers` and `boundary` are for encoders."""
    config, options = CONFIGS[kind], {"scan": scan}
    stack, new, words = {"encoder": Stack(L, N, H)}, frozenset(), "encoder/embeddings/word/embedding"
    if kind == "t5":
        module, words = build_t5(config, **options), "embeddings/word/embedding"
        stack = {"encoder": Stack(L, N, 24), "decoder": Stack(3, N, 24), "cross": Stack(3, N, 24)}
        segments = {"encoder": module.segments, "decoder": module.decoder_segments}
        params, table = fill(build_t5(config, scan=False)), t5_table(module.config)
    elif kind in CAUSAL:
        module, table = build_causal_lm(config, **options), causal_lm_table(kind)
        stack = {"encoder": Stack(L, module.encoder.config.key_value_heads, H)}
        segments, params = module.encoder.segments, fill(build_causal_lm(config, scan=False))
    else:
        config = config | {"num_hidden_layers": num_layers}
        module = build_model(config, **options, boundary=boundary)
        stack, new = {"encoder": Stack(num_layers, N, H)}, frozenset(NEW)
        segments, table = module.segments, ARCHITECTURES[kind].table.under("encoder")
        params = {"encoder": fill(build_model(config, scan=False)), **NEW}
    target = Target(config["model_type"], new, words, D, stack, encode)
    return System(module, group(params, segments), segments, target, table)


def fill(module: nn.Module) -> dict[str, Any]:
    """Random weights of an unrolled network."""
    random = np.random.RandomState(0)
    return jax.tree.map(lambda x: 0.2 * random.standard_normal(x.shape).astype(np.float32), abstract_params(module))


def count(tree: Any) -> int:
    """The number of elements in a tree of (abstract) arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def encode(text: str) -> list[int]:
    """One token per letter."""
    return [ord(letter) % V for letter in text if letter.isalpha()]


def method(target: Target, **config: Any) -> Tuning:
    return make_tuning(TuningConfig(**config), target)


def moved(tree: Any, seed: int = 1) -> Any:
    """A tree of the same structure with random numbers: around 1 where the element is 1, else around 0."""
    random = np.random.RandomState(seed)
    return jax.tree.map(lambda x: np.float32(x == 1) + 0.3 * random.standard_normal(x.shape).astype(np.float32), tree)
