"""The form in which weights are read and held."""

from __future__ import annotations

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvalues.models import init_model, save_model
from jaxvalues.models.layers.quantized import QuantizedWeight
from jaxvalues.run.base import Base
from jaxvalues.run.held import held_tree, hold_frozen
from jaxvalues.run.network import count
from jaxvalues.run.state import initial_weights
from jaxvalues.run.system import System
from jaxvalues.training.sharding import place_batch, place_on
from jaxvalues.tuning import Params

pytestmark = pytest.mark.usefixtures("quick_compiles")


def read(folder: Path, method: str, scan: bool, quantization: str | None = None) -> tuple[System, Base]:
    """The system of a bfloat16 network that starts from a checkpoint, and this checkpoint."""
    config = {**tiny.ROBERTA, "vocab_size": 2000}
    save_model(folder, config, init_model(config)[1])
    model = {"dtype": "bfloat16", "scan": scan, "quantization": quantization}
    system = tiny.system(tiny.config({"model": model, "tuning": {"method": method}}))
    return system, Base(system.hf_config, folder, "a folder")


@pytest.mark.parametrize(("method", "scan"), [("lora", True), ("bitfit", False)])
def test_frozen_matrices_are_read_rounded(
    method: str, scan: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers as rounding after reading, and none of the frozen matrices on the device in float32."""
    system, base = read(tmp_path, method, scan)
    expected = hold_frozen(system, initial_weights(system, base, 0))
    seen, original = {}, place_on.__call__

    def look(self: place_on, path: str, array: np.ndarray) -> jax.Array:
        seen[path] = array.dtype
        return original(self, path, array)

    monkeypatch.setattr(place_on, "__call__", look)
    found = initial_weights(system, base, 0, held=True)
    chex.assert_trees_all_equal(hold_frozen(system, found), expected)
    matrices = {path: dtype for path, dtype in seen.items() if path.endswith("/kernel")}
    assert matrices
    assert set(matrices.values()) == {jnp.dtype(jnp.bfloat16)}
    assert seen["embeddings/word/embedding"] == np.float32  # prompts may start from it


def test_what_trains_is_read_whole(tmp_path: Path) -> None:
    system, base = read(tmp_path, "full", False)
    weights = initial_weights(system, base, 0, held=True)
    assert {leaf.dtype for leaf in flatten_dict(weights.trainable).values()} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("how", ["int8", "int4"])
@pytest.mark.parametrize(("method", "scan"), [("lora", True), ("bitfit", False), ("ia3", True)])
def test_frozen_layers_are_held_in_few_bits(method: str, scan: bool, how: str, tmp_path: Path) -> None:
    """Those that were read so, and those that are made so later, are the same; what trains is as it was."""
    pytest.importorskip("qwix")
    plain, base = read(tmp_path, method, scan)
    system, _ = read(tmp_path, method, scan, how)
    weights = hold_frozen(system, initial_weights(system, base, 0, held=True))
    chex.assert_trees_all_equal(weights, hold_frozen(system, initial_weights(system, base, 0)))
    chex.assert_trees_all_equal_shapes_and_dtypes(
        weights.frozen, held_tree(system.network.abstract_parts()[0], system.network)
    )
    whole_parts = initial_weights(plain, base, 0)
    chex.assert_trees_all_equal(weights.trainable, whole_parts.trainable)
    assert count(weights.frozen) == count(whole_parts.frozen)  # scales are no parameters
    flat = flatten_dict(weights.frozen, sep="/")
    in_few = {path for path, leaf in flat.items() if isinstance(leaf, QuantizedWeight)}
    assert in_few == {path for path in flat if "/layers/" in path and path.endswith("/kernel")}

    # It computes what a network of the rounded numbers computes, and so do its gradients.
    whole = unflatten_dict({path: leaf.whole() if path in in_few else leaf for path, leaf in flat.items()}, sep="/")
    inputs = tiny.batch(system, system.formulation.encode(tiny.split().arguments[:8]), 8)
    batch = place_batch(inputs, system.mesh)
    evaluated = [
        system.eval_step((8,), weights.trainable, weights.frozen, batch),  # as a run does: compiled ahead
        system.eval_step.jitted(weights.trainable, whole, batch),
    ]
    np.testing.assert_allclose(*evaluated, atol=0.02)

    def gradients(frozen: Params) -> Params:
        def loss(trainable: Params) -> jax.Array:
            return system._apply(system.network.tuning.bind(frozen, trainable), batch, None).logits.sum()

        return jax.jit(jax.grad(loss))(weights.trainable)

    for mine, other in zip(*map(jax.tree.leaves, map(gradients, (weights.frozen, whole))), strict=True):
        np.testing.assert_allclose(mine, other, atol=0.05 * np.abs(other).max() + 1e-6)
