"""Attention against its equation, and the shift from scores of distances to scores of keys."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvalues.models.layers.attention import attention, shift


def qkv(queries=5, keys=7):
    a, b, c = jax.random.split(jax.random.key(0), 3)
    return (jax.random.normal(key, (2, n, 4, 8)) for key, n in ((a, queries), (b, keys), (c, keys)))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", "tpu"])  # both ways of computing it, on the device at hand
def test_attention_follows_its_equation(monkeypatch, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    q, k, v = qkv()
    mask = np.arange(7)[None, None, None, :] < np.array([4, 0])[:, None, None, None]  # the second row sees nothing
    bias = jax.random.normal(jax.random.key(3), (1, 4, 5, 7))
    out = np.asarray(attention(q, k, v, mask=mask, bias=bias, scale=0.3))
    scores = np.einsum("tnh,snh->nts", q[0], k[0]) * 0.3 + bias[0]
    weights = np.exp(scores[..., :4])
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(out[0], np.einsum("nts,snh->tnh", weights, v[0, :4]), atol=1e-5)
    assert np.isfinite(out[1]).all()


@pytest.mark.slow
def test_attention_drops_probabilities():
    q, k, v = qkv(200, 100)
    rate, v = 0.25, jnp.ones_like(v)
    out = attention(q, k, v, dropout_rate=rate, dropout_rng=jax.random.key(1))  # the sum of the kept, scaled weights
    assert float(out.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(out[..., 0].std()) > 0.05
    np.testing.assert_allclose(attention(q, k, v, dropout_rate=rate), 1.0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", "tpu"])  # both ways of computing its gradient, on the device at hand
@pytest.mark.parametrize(("tokens", "keys"), [(1, 1), (2, 2), (7, 7), (3, 8), (8, 3)])
def test_shift_reads_each_row_one_entry_earlier(monkeypatch, tokens, keys, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    scores = jnp.asarray(np.random.RandomState(0).standard_normal((2, 3, tokens, tokens + keys)), jnp.float32)
    i, j = np.indices((tokens, keys))
    shifted, gradient = jax.vjp(shift, scores)
    looked_up, expected = jax.vjp(lambda x: x[..., i, tokens - 1 - i + j], scores)
    np.testing.assert_array_equal(shifted, looked_up)
    back = jnp.arange(1.0, shifted.size + 1).reshape(shifted.shape)
    np.testing.assert_array_equal(*gradient(back), *expected(back))
