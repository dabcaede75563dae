"""Tokens that join a larger cache."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvalues.models import Cache, append

LAYERS, ROWS, HEADS, WIDTH = 2, 3, 2, 4


def numbered(slots: int, length: int, first: int) -> Cache:
    """A cache whose slots hold the numbers from `first` on; an odd one is not real."""
    number = first + np.arange(slots)
    kv = np.broadcast_to(number[:, None].astype(np.float32), (LAYERS, 2, ROWS, HEADS, slots, WIDTH))
    real = np.broadcast_to((number % 2 == 0) & (np.arange(slots) < length), (ROWS, slots))
    return Cache(jnp.asarray(kv), jnp.asarray(real), jnp.int32(length))


@pytest.mark.parametrize(("length", "added"), [(0, 4), (3, 2), (5, 3), (7, 1), (4, 4), (8, 0), (2, 0)])
def test_recent_tokens_join_a_cache_also_at_its_end(length: int, added: int) -> None:
    joined = jax.jit(append)(numbered(8, length, 10), numbered(4, added, 20))
    assert int(joined.length) == length + added
    expected = [*range(10, 10 + length), *range(20, 20 + added)]
    kv = np.asarray(joined.kv)[..., : length + added, :]
    np.testing.assert_array_equal(kv, np.broadcast_to(np.array(expected)[:, None], kv.shape))
    for row in np.asarray(joined.real):
        assert row.tolist() == [number % 2 == 0 for number in expected] + [False] * (8 - length - added)


def test_what_does_not_fit_makes_nothing_look_right() -> None:
    joined = append(numbered(8, 6, 10), numbered(4, 3, 20))
    assert np.isnan(np.asarray(joined.kv)[..., 4:, :]).all()
