"""The dense layer against flax's, and its products."""

from __future__ import annotations

from functools import partial

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from jaxvalues.models.layers.dense import Dense, merge_beside


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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_what_acts_beside_the_kernel_is_what_is_merged_into_it(use_bias, dtype):
    keys = jax.random.split(jax.random.key(0), 6)
    x = jax.random.normal(keys[0], (2, 3, 8))
    layer = Dense(6, use_bias=use_bias, dtype=dtype)
    params = layer.init(keys[1], x)["params"]
    params |= {"bias": jax.random.normal(keys[1], (6,))} if use_bias else {}
    beside = {
        "low_rank": {"a": jax.random.normal(keys[2], (8, 2)), "b": jax.random.normal(keys[3], (2, 6))},
        "input_scale": jax.random.normal(keys[4], (8,)),
        "output_scale": jax.random.normal(keys[5], (6,)),
    }
    for names in ({"low_rank"}, {"input_scale"}, {"output_scale"}, set(beside)):
        some = {name: beside[name] for name in names}

        def found(some, merged=False):
            whole = params | some
            return layer.apply({"params": merge_beside(whole) if merged else whole}, x).astype(jnp.float32)

        tolerance = 1e-5 if dtype == "float32" else 0.05
        ours, theirs = (jax.vjp(partial(found, merged=merged), some) for merged in (False, True))
        chex.assert_trees_all_close(ours[0], theirs[0], rtol=tolerance, atol=10 * tolerance)
        ones = jnp.ones_like(ours[0])
        if dtype == "float32":
            chex.assert_trees_all_close(ours[1](ones), theirs[1](ones), rtol=1e-5, atol=1e-4)
    kernel = layer.apply({"params": params | beside}, lambda kernel: kernel, method="with_merged_kernel")
    chex.assert_trees_all_close(kernel, merge_beside(params | beside)["kernel"].astype(dtype), rtol=1e-2)
