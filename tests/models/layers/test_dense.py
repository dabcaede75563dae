"""The dense layer against flax's, and its products."""

from __future__ import annotations

import chex
import jax
import pytest
from flax import linen as nn

from jaxvalues.models.layers.dense import Dense


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5), (2, 3, 4, 5)])
def test_it_is_flax_s_dense_layer(shape, use_bias):
    x = jax.random.normal(jax.random.key(1), shape)

    def measured(layer):
        params = layer.init(jax.random.key(0), x)
        grads = jax.grad(lambda params, x: jax.numpy.sin(layer.apply(params, x)).sum(), argnums=(0, 1))(params, x)
        return params, layer.apply(params, x), grads

    ours, theirs = (measured(layer(4, use_bias=use_bias)) for layer in (Dense, nn.Dense))
    chex.assert_trees_all_equal(ours[0], theirs[0])  # the same initial values
    chex.assert_trees_all_close(ours[1:], theirs[1:], rtol=1e-5, atol=1e-6)
