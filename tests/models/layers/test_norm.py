"""Norms have the parameters, numbers and gradients of flax's."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxvalues.models.layers.norm import LayerNorm, RMSNorm

PAIRS = {
    "layer": (LayerNorm(1e-5), nn.LayerNorm(1e-5, use_fast_variance=False)),
    "rms": (RMSNorm(1e-6), nn.RMSNorm(1e-6)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PAIRS)
def test_numbers_and_gradients_are_flax_s(kind):
    ours, theirs = PAIRS[kind]
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (2, 5, 16))
    params = theirs.init(jax.random.key(1), x)
    chex.assert_trees_all_equal(ours.init(jax.random.key(1), x), params)
    params = jax.tree.map(lambda leaf: leaf + jax.random.normal(jax.random.key(2), leaf.shape), params)

    def measured(module):
        return jax.value_and_grad(lambda params, x: jnp.sin(module.apply(params, x)).sum(), (0, 1))(params, x)

    chex.assert_trees_all_close(measured(ours), measured(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", PAIRS)
def test_statistics_are_float32_whatever_comes_in(kind):
    ours, theirs = (module.clone(dtype=jnp.bfloat16) for module in PAIRS[kind])
    x = (1000 * jax.random.normal(jax.random.key(0), (3, 64))).astype(jnp.bfloat16)
    params = theirs.init(jax.random.key(1), x)
    y = ours.apply(params, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, theirs.apply(params, x))
