"""Products of matrices: plain ones in float32; in bfloat16 the same within its rounding, and never in another form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvalues.models.layers.products import matmul, times_matrix

ROUNDING = 2**-8  # relative, of one bfloat16


def product_and_gradients(product: Callable, a: jax.Array, b: jax.Array) -> tuple[jax.Array, ...]:
    """The product, and the gradients of a weighted sum of its entries."""
    y, pull = jax.vjp(product, a, b)
    weights = jax.random.normal(jax.random.key(2), y.shape)
    return (y, *pull(weights.astype(y.dtype)))


def operands(*shapes: tuple[int, ...]) -> list[jax.Array]:
    return [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("rows", [(), (2,), (2, 3), (2, 3, 4)])
def test_times_matrix_is_a_product_over_the_last_axis(rows: tuple[int, ...], over: int) -> None:
    x, matrix = operands((*rows, 5), (4, 5) if over else (5, 4))
    expected = product_and_gradients(lambda x, m: jnp.tensordot(x, m.T if over else m, 1), x, matrix)
    chex.assert_trees_all_close(
        product_and_gradients(lambda x, m: times_matrix(x, m, over=over), x, matrix), expected, rtol=1e-5, atol=1e-6
    )
    ours = product_and_gradients(lambda x, m: times_matrix(x, m, over=over), x.astype(jnp.bfloat16), matrix)
    assert [each.dtype for each in ours] == [jnp.float32, jnp.bfloat16, jnp.float32]
    for mine, theirs in zip(ours, expected, strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(mine.astype(jnp.float32), theirs, atol=3 * ROUNDING * scale)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_matmul_is_numpy_s(batch: tuple[int, ...]) -> None:
    a, b = operands((*batch, 4, 5), (*batch, 5, 6))
    expected = product_and_gradients(jnp.matmul, a, b)
    chex.assert_trees_all_close(product_and_gradients(matmul, a, b), expected, rtol=1e-5, atol=1e-6)
    ours = product_and_gradients(matmul, a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))
    assert [each.dtype for each in ours] == [jnp.float32, jnp.bfloat16, jnp.bfloat16]
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine.astype(jnp.float32), theirs, atol=3 * ROUNDING * np.abs(theirs).max())


def test_a_float32_matrix_is_not_rounded_when_it_is_updated() -> None:
    """The gradient of a master weight is a float32 sum of exact products, not a rounded one."""
    x, matrix = operands((8, 16, 32), (32, 64))
    x16 = x.astype(jnp.bfloat16)
    gradient = jax.grad(lambda m: times_matrix(x16, m).sum())(matrix)
    exact = np.asarray(x16, np.float64).sum((0, 1))[:, None] * np.ones((1, 64))
    np.testing.assert_allclose(gradient, exact, rtol=1e-5, atol=1e-5)


def products_in(function: Callable, *args: jax.Array) -> list[tuple[str, ...]]:
    """The types of the operands and the result of every product that a function computes."""
    found = []

    def visit(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                found.append(tuple(v.aval.dtype.name for v in (*equation.invars, *equation.outvars)))
            for value in jax.tree.leaves(list(equation.params.values())):
                if (inner := getattr(value, "jaxpr", value)) is not None and hasattr(inner, "eqns"):
                    visit(inner)

    visit(jax.make_jaxpr(function)(*args).jaxpr)
    return found


def test_every_product_of_a_step_is_of_two_bfloat16_and_float32() -> None:
    x, matrix, keys = operands((2, 3, 8), (8, 8), (2, 8, 3))
    x, keys = x.astype(jnp.bfloat16), keys.astype(jnp.bfloat16)

    def loss(x: jax.Array, matrix: jax.Array, keys: jax.Array) -> jax.Array:
        return jnp.square(matmul(times_matrix(x, matrix).astype(jnp.bfloat16), keys)).sum()

    found = products_in(jax.grad(loss, argnums=(0, 1, 2)), x, matrix, keys)
    assert found == [("bfloat16", "bfloat16", "float32")] * 6
