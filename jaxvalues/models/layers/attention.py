"""Scaled dot-product attention (Vaswani et al., 2017, eq. 1), which every network calls.

And two of its parts: prefixes before keys and values, and the shift from scores of distances to scores of keys.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxvalues.models.layers.ops import dropout, soft_cap
from jaxvalues.models.layers.products import matmul

KeysValues = tuple[jax.Array, jax.Array]  # each [B, S, K, H]
Extend = Callable[[KeysValues], KeysValues]  # adds keys and values to those of x

# Finite, so that a row without any key gives a uniform average and never NaN.
MASKED = -1e30


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    scale: float | None = None,
    cap: float | None = None,
    dropout_rate: float = 0.0,
    dropout_rng: jax.Array | None = None,
) -> jax.Array:
    """Attend from `query` [B, T, N, H] to `key` and `value` [B, S, K, H]; returns [B, T, N, H].

    K divides N: each head of keys and values serves N / K heads of queries that follow each other (grouped-query
    attention; Ainslie et al., 2023). `mask` is boolean, True where a query may attend to a key; `bias` is added to the
    scaled scores; both broadcast to [B, N, T, S]. `scale` defaults to H ** -0.5; `cap` is that of `soft_cap`, for
    scaled scores. Probabilities are dropped at `dropout_rate` where a `dropout_rng` is given. The softmax is computed
    in float32 whatever the inputs' dtype.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    drops = dropout_rng is not None and dropout_rate > 0.0
    if not drops and cap is None and jax.default_backend() != "cpu":
        return jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask, scale=scale)

    # On CPU a batched product over contiguous [B, N, T, H] is a third faster than an einsum over [B, T, N, H].
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (query * scale, key, value))
    scores = soft_cap(_grouped_matmul(q, k.transpose(0, 1, 3, 2)), cap)  # [B, N, T, S]
    if bias is not None:
        scores += bias
    if mask is not None:
        scores = jnp.where(mask, scores, MASKED)
    weights = dropout(jax.nn.softmax(scores, axis=-1), dropout_rate, dropout_rng)
    return _grouped_matmul(weights.astype(v.dtype), v).astype(v.dtype).transpose(0, 2, 1, 3)


def _grouped_matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """a [B, N, T, X] times b [B, K, X, S], each head of which serves N / K heads of a: [B, N, T, S] float32."""
    batch, heads, rows, width = a.shape
    product = matmul(a.reshape(batch, b.shape[1], heads // b.shape[1] * rows, width), b)
    return product.reshape(batch, heads, rows, b.shape[-1])


def after_past(past: jax.Array | None, new: KeysValues) -> KeysValues:
    """Keys and values `new` behind those of earlier positions, `past` [2, B or 1, S, K, H]."""
    if past is None:
        return new
    rows = jnp.broadcast_to(past.astype(new[0].dtype), (2, len(new[0]), *past.shape[2:]))
    return jnp.concatenate([rows[0], new[0]], axis=1), jnp.concatenate([rows[1], new[1]], axis=1)


def preceded_by(prefix: jax.Array | None) -> Extend:
    """A function that puts `prefix` [2, P, K, H] before the keys and values of every row."""
    return partial(after_past, None if prefix is None else prefix[:, None])


def shift(scores: jax.Array) -> jax.Array:
    """Transformer-XL's relative shift (Dai et al., 2019, appendix B): `scores` [..., T, T + S] to [..., T, S].

    Row i of `scores` holds the scores of query i with each distance, and entry (i, j) of the result is
    scores[i, T - 1 - i + j]. Rows of T + S, read again as rows of T + S - 1, begin one entry earlier each.
    """
    return _shift_on_cpu(scores) if jax.default_backend() == "cpu" else _shift(scores)


def _shift(scores: jax.Array) -> jax.Array:
    *batch, tokens, width = scores.shape
    flat = scores.reshape(*batch, tokens * width)[..., tokens - 1 : -1]
    return flat.reshape(*batch, tokens, width - 1)[..., : width - tokens]


def _unshift(_: None, grad: jax.Array) -> tuple[jax.Array]:
    """The gradient of `shift`, [..., T, S] to [..., T, T + S]: each row padded with zeros and cut out at its place.

    Autodiff's pads and reshapes do the same entry by entry, with divisions for each; T slices take a third of the time.
    """
    tokens, keys = grad.shape[-2:]
    padded = jnp.pad(grad, [(0, 0)] * (grad.ndim - 1) + [(tokens - 1, tokens)])

    def cut(row: jax.Array, first: jax.Array) -> jax.Array:
        return lax.dynamic_slice_in_dim(row, first, tokens + keys, axis=-1)

    return (jax.vmap(cut, in_axes=(-2, 0), out_axes=-2)(padded, jnp.arange(tokens)),)


_shift_on_cpu = jax.custom_vjp(_shift)
_shift_on_cpu.defvjp(lambda scores: (_shift(scores), None), _unshift)
