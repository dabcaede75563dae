"""What the table splits of every network: all parameters, without weights, under `fsdp`, `tensor` and both."""

from __future__ import annotations

import math
import re
from typing import Any

import jax
import pytest
import tiny
from jax.sharding import AbstractMesh, NamedSharding

from jaxvalues.config import MeshConfig
from jaxvalues.models import build_causal_lm, build_masked_lm, build_t5
from jaxvalues.models.architectures import ARCHITECTURES
from jaxvalues.models.loading import abstract_model, abstract_params
from jaxvalues.training.sharding import abstract_mesh, partition

MESHES = {"fsdp": MeshConfig(data=1, fsdp=4), "tensor": MeshConfig(data=1, tensor=4)}
BOTH = MeshConfig(data=1, fsdp=2, tensor=2)
SIZES = {**tiny.ROBERTA, "vocab_size": 601, "num_key_value_heads": 2, "head_dim": 16, "layer_norm_eps": 1e-5}
OF_TYPE: dict[str, dict[str, Any]] = {
    "bert": {"type_vocab_size": 2},
    "deberta": {**tiny.DEBERTA_V2, "model_type": "deberta", "pos_att_type": "c2p|p2c"},
    "deberta-v2": {**tiny.DEBERTA_V2, "share_att_key": False, "conv_kernel_size": 3, "conv_act": "gelu"},
    "gpt2": tiny.GPT2,
    "qwen2": {"use_sliding_window": False},
}
# Parameters that a device keeps whole. Vectors: splitting them saves nothing. Tables of positions and of token types,
# a convolution and a classifier's head: `tensor` splits the layers and the vocabulary.
VECTORS = r"/(bias|scale)$"
WHOLE = {
    "fsdp": VECTORS,
    "tensor": rf"{VECTORS}|/embeddings/(position|token_type|relative|conv)/|/relative_bias/|/head/dense/kernel$",
}
WHOLE["both"] = VECTORS


def networks() -> dict[str, Any]:
    """Shapes of the parameters of every registered architecture, and of both kinds of T5."""
    found = {}
    for kind in ARCHITECTURES:
        config = {**SIZES, **OF_TYPE.get(kind, {}), "model_type": kind, "vocab_size": 601}
        for scan in (False, True):
            found[f"{kind}, {'scanned' if scan else 'unrolled'}"] = {"encoder": abstract_model(config, scan=scan)[1]}
    for name, build, config in (
        ("masked words", build_masked_lm, {**SIZES}),
        ("causal words", build_causal_lm, {**SIZES, "model_type": "llama", "tie_word_embeddings": False}),
        ("t5", build_t5, {**tiny.T5, "vocab_size": 601}),
        (
            "t5, gated",
            build_t5,
            {**tiny.T5, "vocab_size": 601, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        ),
    ):
        found[name] = abstract_params(build(config))
    return found


def whole(params: Any, mesh: AbstractMesh) -> set[str]:
    """Paths of the parameters that the mesh leaves whole on every device."""
    found = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        shard = NamedSharding(mesh, partition(name, leaf.shape, mesh)).shard_shape(leaf.shape)
        if math.prod(shard) == leaf.size:
            found.add(f"/{name}")
    return found


@pytest.fixture(scope="module")
def trees() -> dict[str, Any]:
    return networks()


@pytest.mark.parametrize("axis", ["fsdp", "tensor", "both"])
def test_only_what_is_listed_stays_whole(axis: str, trees: dict[str, Any]) -> None:
    mesh = abstract_mesh(MESHES.get(axis, BOTH))
    left = {
        name: {path for path in whole(params, mesh) if not re.search(WHOLE[axis], path)}
        for name, params in trees.items()
    }
    assert {name: paths for name, paths in left.items() if paths} == {}


def test_every_matrix_of_a_layer_is_split_by_both_axes(trees: dict[str, Any]) -> None:
    mesh = abstract_mesh(BOTH)
    for name, params in trees.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            full = jax.tree_util.keystr(path, simple=True, separator="/")
            if re.search(r"layers/.*/kernel$", full):
                shard = NamedSharding(mesh, partition(full, leaf.shape, mesh)).shard_shape(leaf.shape)
                assert math.prod(shard) == leaf.size // 4, (name, full)
