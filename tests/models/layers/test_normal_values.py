"""Initial values are those of jax.random, bit for bit, whatever computes them, and those of Flax up to rounding."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxvalues.models.layers.initializers import in_one_expression, normal, standard_normal


def same(ours: Any, theirs: Any) -> None:
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (33, 65), (3, 5, 4)])
@pytest.mark.parametrize("seed", [0, 12345])
def test_standard_normal_is_that_of_jax(seed: int, shape: tuple[int, ...]) -> None:
    key = jax.random.fold_in(jax.random.key(seed), 7)
    same(standard_normal(key, shape), jax.random.normal(key, shape))
    same(in_one_expression(key, shape), jax.random.normal(key, shape))
    same(jax.jit(in_one_expression, static_argnums=1)(key, shape), jax.random.normal(key, shape))


def test_standard_normal_of_many_keys() -> None:
    keys = jax.random.split(jax.random.key(3), 4)
    same(
        jax.vmap(lambda key: in_one_expression(key, (9, 2)))(keys),
        jax.vmap(lambda key: jax.random.normal(key, (9, 2)))(keys),
    )


def test_other_generators_stay_theirs() -> None:
    for key in (jax.random.key(1, impl="rbg"), jax.random.PRNGKey(1)):
        same(standard_normal(key, (4, 3)), jax.random.normal(key, (4, 3)))
    with jax.threefry_partitionable(False):
        same(standard_normal(jax.random.key(1), (5, 3)), jax.random.normal(jax.random.key(1), (5, 3)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_normal_is_that_of_flax(dtype: Any) -> None:
    key = jax.random.key(5)
    ours = normal(0.02)(key, (64, 3), dtype)
    if dtype == jnp.float32:
        np.testing.assert_allclose(ours, nn.initializers.normal(0.02)(key, (64, 3), dtype), rtol=3e-7)
    assert ours.dtype == dtype
    assert 0.015 < float(jnp.std(ours.astype(jnp.float32))) < 0.025
