"""The dtype in which weights are read and held."""

from __future__ import annotations

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict

from jaxvalues.models import init_model, save_model
from jaxvalues.run.base import Base
from jaxvalues.run.held import hold_frozen
from jaxvalues.run.state import initial_weights
from jaxvalues.run.system import System
from jaxvalues.training.sharding import place_on

pytestmark = pytest.mark.usefixtures("quick_compiles")


def read(folder: Path, method: str, scan: bool) -> tuple[System, Base]:
    """The system of a bfloat16 network that starts from a checkpoint, and this checkpoint."""
    config = {**tiny.ROBERTA, "vocab_size": 2000}
    save_model(folder, config, init_model(config)[1])
    model = {"dtype": "bfloat16", "scan": scan}
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
