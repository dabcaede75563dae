"""Distances of tokens: their buckets as in transformers, and their bias looked up once per distance."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvalues.models.layers.distance_bias import distance_bias, distance_buckets


@pytest.mark.parametrize(("buckets", "reach"), [(32, 128), (10, 12), (4, 3), (33, 100), (64, 256), (7, 30)])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_are_those_of_transformers(buckets, reach, bidirectional):
    torch = pytest.importorskip("torch")
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-reach - 9, reach + 10)
    theirs = T5Attention._relative_position_bucket(distance, bidirectional, buckets, reach).numpy()
    ours = distance_buckets(buckets, reach, bidirectional)[np.clip(distance, -reach, reach) + reach]
    np.testing.assert_array_equal(ours, theirs)


def test_buckets_are_those_of_mpnet():
    torch = pytest.importorskip("torch")
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distance = torch.arange(-600, 601)
    theirs = MPNetEncoder.relative_position_bucket(distance, num_buckets=32).numpy()
    np.testing.assert_array_equal(distance_buckets(32, 128, True)[np.clip(distance, -128, 128) + 128], theirs)


@pytest.mark.parametrize(("tokens", "keys", "start"), [(5, 5, 0), (1, 9, 4), (3, 30, 20)])
def test_the_bias_of_a_pair_is_that_of_its_distance(tokens, keys, start):
    table, buckets = np.random.RandomState(0).standard_normal((10, 4)), distance_buckets(10, 12, True)
    distance = np.arange(keys) - (start + np.arange(tokens)[:, None])
    expected = table[buckets[np.clip(distance, -12, 12) + 12]].transpose(2, 0, 1)[None]
    given = jnp.asarray(table, jnp.float32), buckets, tokens, keys
    for bias in (distance_bias(*given, start), jax.jit(functools.partial(distance_bias, *given))(start)):
        np.testing.assert_array_equal(bias, expected.astype(np.float32))
