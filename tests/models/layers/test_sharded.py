"""Weights in shards: products and gradients are those of whole weights, and no whole weight is kept."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvalues.config import MeshConfig
from jaxvalues.models.layers.products import times_matrix
from jaxvalues.models.layers.sharded import Placement, ShardedWeight, gathered, gathered_once
from jaxvalues.models.layers.stand_ins import with_whole
from jaxvalues.training.sharding import make_mesh

MESH = make_mesh(MeshConfig(data=2, fsdp=4))
L, B, T, D, F = 3, 8, 4, 64, 128


def sharded(matrix: jax.Array, again: bool = True) -> ShardedWeight:
    return ShardedWeight(matrix, Placement(NamedSharding(MESH, P("fsdp", None)), NamedSharding(MESH, P()), again))


def arrays(dtype: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x [B, T, D], a float32 matrix [D, F] and the gradient of a product [B, T, F]."""
    rng = np.random.default_rng(0)
    x, matrix, grad = (rng.standard_normal(shape) for shape in ((B, T, D), (D, F), (B, T, F)))
    return jnp.asarray(x, dtype), jnp.asarray(matrix, jnp.float32), jnp.asarray(grad, jnp.float32)


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("over", [0, 1])
def test_products_and_gradients_are_those_of_the_whole(dtype: Any, over: int, again: bool) -> None:
    x, matrix, grad = arrays(dtype)
    matrix = matrix.T if over else matrix

    def product(x: jax.Array, matrix: jax.Array, split: bool) -> jax.Array:
        return times_matrix(x, sharded(matrix, again) if split else matrix, over=over)

    def both(split: bool) -> Any:
        y, pull = jax.vjp(lambda *args: product(*args, split), x, matrix)
        return y, *pull(grad.astype(y.dtype))

    expected, found = jax.jit(lambda: both(False))(), jax.jit(lambda: both(True))()
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(np.float32(one), np.float32(other), rtol=1e-5, atol=1e-5)
    assert found[2].dtype == jnp.float32  # the gradient of the master weight is not rounded
    assert found[2].sharding.is_equivalent_to(NamedSharding(MESH, P("fsdp", None)), 2)


def test_a_scan_keeps_no_whole_weight() -> None:
    """Of the matrices in the two loops, forward and backward, only those of one layer are whole."""
    x, matrix, _ = arrays(jnp.float32)
    stack = 0.1 * jnp.stack([matrix[:, :D]] * L)
    kept = NamedSharding(MESH, P(None, "fsdp", None))

    def loss(stack: jax.Array) -> jax.Array:
        weight = ShardedWeight(stack, Placement(NamedSharding(MESH, P("fsdp", None)), NamedSharding(MESH, P())))
        y, _ = lax.scan(lambda h, w: (jnp.tanh(times_matrix(h, w)), None), x, weight)
        return (y**2).sum()

    step = jax.jit(jax.grad(loss), in_shardings=kept, out_shardings=kept)
    text = step.lower(stack).compile().as_text()
    assert f"f32[{L},{D // 4},{D}]" in text
    assert f"f32[{L},{D},{D}]" not in text
    assert f"f32[{D},{D}]" in text
    np.testing.assert_allclose(step(stack), jax.grad(lambda s: loss_whole(s, x))(stack), rtol=1e-5, atol=1e-5)


def loss_whole(stack: jax.Array, x: jax.Array) -> jax.Array:
    for matrix in stack:
        x = jnp.tanh(times_matrix(x, matrix))
    return (x**2).sum()


def test_what_is_no_product_keeps_shards_too() -> None:
    x, matrix, _ = arrays(jnp.float32)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        return with_whole(lambda params, x: jnp.einsum("btd,fd->btf", x, params["kernel"].T), params, x).sum()

    params = {"kernel": sharded(jax.device_put(matrix, NamedSharding(MESH, P("fsdp", None))))}
    value, pull = jax.vjp(loss, params, jax.device_put(x, NamedSharding(MESH, P())))
    matrices = [leaf for leaf in jax.tree.leaves(pull) if leaf.size == D * F]
    assert matrices
    assert not any(leaf.sharding.is_fully_replicated for leaf in matrices)
    (grads, _), (expected, _) = jax.jit(pull)(value), jax.vjp(loss, {"kernel": matrix}, x)[1](value)
    np.testing.assert_allclose(grads["kernel"].array, expected["kernel"], rtol=1e-5, atol=1e-5)


def test_arrays_pass() -> None:
    matrix = jnp.ones((D, F))
    assert gathered(matrix) is matrix
    assert gathered(matrix, jnp.bfloat16).dtype == jnp.bfloat16
    assert gathered_once({"kernel": matrix})["kernel"] is matrix
