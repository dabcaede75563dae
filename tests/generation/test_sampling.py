"""Draws of tokens: their frequencies, the nucleus, and their keys."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvalues.generation.sampling import Sampling, choose, nucleus, row_keys

LOGITS = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32) * 2


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.9, 1.0])
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(top_p):
    kept = np.isfinite(np.asarray(nucleus(jnp.asarray(LOGITS), top_p)))
    probabilities = softmax(LOGITS.astype(np.float64))
    for row, is_kept in zip(probabilities, kept, strict=True):
        ordered = np.sort(row)[::-1]
        size = min(int(np.searchsorted(np.cumsum(ordered), top_p - 1e-9)) + 1, len(row))
        assert is_kept.sum() == size
        assert row[is_kept].min() >= ordered[size - 1]


def test_the_nucleus_is_that_of_transformers():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    theirs = transformers.TopPLogitsWarper(0.8)(None, torch.tensor(LOGITS)).numpy()
    np.testing.assert_array_equal(np.asarray(nucleus(jnp.asarray(LOGITS), 0.8)), theirs)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 0.8)])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature, top_p):
    draws = 20_000
    keys = row_keys(7, np.zeros(draws, np.uint32), np.arange(draws, dtype=np.uint32))
    sampling = Sampling(jnp.float32(temperature), jnp.float32(top_p), keys)
    tokens = np.asarray(jax.jit(choose)(jnp.broadcast_to(LOGITS[0], (draws, 50)), sampling, 3))
    expected = softmax(LOGITS[0] / temperature)
    inside = np.isfinite(np.asarray(nucleus(jnp.asarray(LOGITS[:1] / temperature), top_p))[0])
    expected = np.where(inside, expected, 0) / expected[inside].sum()
    found = np.bincount(tokens, minlength=50) / draws
    assert not found[~inside].any()
    # five standard deviations of a share
    assert (np.abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / draws) + 1e-4).all()


def test_a_temperature_of_zero_takes_the_most_likely_token():
    keys = row_keys(0, np.arange(3, dtype=np.uint32), np.zeros(3, np.uint32))
    sampling = Sampling(jnp.float32(0), jnp.float32(0.5), keys)
    for rules in (sampling, None):
        np.testing.assert_array_equal(choose(jnp.asarray(LOGITS), rules, 0), LOGITS.argmax(axis=1))


def test_a_key_follows_from_seed_prompt_and_sample_alone():
    def data(*args):
        return np.asarray(jax.random.key_data(row_keys(*args)))

    numbers = np.arange(4, dtype=np.uint32)
    zeros = np.zeros(4, np.uint32)
    all_rows = np.concatenate([data(0, numbers, zeros), data(0, zeros, numbers)[1:], data(1, numbers, zeros)])
    assert len(np.unique(all_rows, axis=0)) == len(all_rows)
    np.testing.assert_array_equal(data(0, numbers[2:3], zeros[:1])[0], data(0, numbers, zeros)[2])
