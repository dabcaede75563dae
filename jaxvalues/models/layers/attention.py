"""Scaled dot-product attention (Vaswani et al., 2017, eq. 1), which every network calls.

And two of its parts: prefixes before keys and values, and the shift from scores of distances to scores of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np
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
    cached: Sequence[jax.Array] = (),
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    scale: float | None = None,
    cap: float | None = None,
    dropout_rate: float = 0.0,
    dropout_rng: jax.Array | None = None,
) -> jax.Array:
    """Attend from `query` [B, T, N, H] to `key` and `value` [B, S, K, H]; returns [B, T, N, H].

    K divides N: each head of keys and values serves N / K heads of queries that follow each other (grouped-query
    attention; Ainslie et al., 2023). Each of `cached` [2, B, K, R, H] are keys and values of R earlier positions, which
    count among S, in this order and before `key`; they are read where they are, not joined with it. `mask` is boolean,
    True where a query may attend to a key; `bias` is added to the
    scaled scores; both broadcast to [B, N, T, S]. `scale` defaults to H ** -0.5; `cap` is that of `soft_cap`, for
    scaled scores. Probabilities are dropped at `dropout_rate` where a `dropout_rng` is given. The softmax is computed
    in float32 whatever the inputs' dtype.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    drops = dropout_rng is not None and dropout_rate > 0.0
    if not cached and not drops and cap is None and jax.default_backend() != "cpu":
        return jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask, scale=scale)

    # On CPU a batched product over contiguous [B, N, T, H] is a third faster than an einsum over [B, T, N, H].
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (query * scale, key, value))
    parts = [*((each[0], each[1]) for each in cached), (k, v)]
    products = [_grouped_matmul(q, keys, transposed=True) for keys, _ in parts]
    scores = soft_cap(jnp.concatenate(products, axis=-1), cap)  # [B, N, T, S]
    if bias is not None:
        scores += bias
    if mask is not None:
        scores = jnp.where(mask, scores, MASKED)
    weights = dropout(jax.nn.softmax(scores, axis=-1), dropout_rate, dropout_rng)
    ends = np.cumsum([keys.shape[2] for keys, _ in parts])[:-1]
    each_part = zip(jnp.split(weights.astype(v.dtype), ends, axis=-1), parts, strict=True)
    out = reduce(add, (_grouped_matmul(of_part, values) for of_part, (_, values) in each_part))
    return out.astype(v.dtype).transpose(0, 2, 1, 3)


def _grouped_matmul(a: jax.Array, b: jax.Array, *, transposed: bool = False) -> jax.Array:
    """a [B, N, T, X] times b [B, K, X, S], each head of which serves N / K heads of a: [B, N, T, S] float32.

    If b is `transposed`, it is [B, K, S, X].
    """
    batch, heads, rows, width = a.shape
    product = matmul(a.reshape(batch, b.shape[1], heads // b.shape[1] * rows, width), b, transposed=transposed)
    return product.reshape(batch, heads, rows, product.shape[-1])


def preceded_by(prefix: jax.Array | None) -> Extend:
    """A function that puts `prefix` [2, P, K, H] before the keys and values of every row."""

    def extend(new: KeysValues) -> KeysValues:
        if prefix is None:
            return new
        rows = jnp.broadcast_to(prefix[:, None].astype(new[0].dtype), (2, len(new[0]), *prefix.shape[1:]))
        return jnp.concatenate([rows[0], new[0]], axis=1), jnp.concatenate([rows[1], new[1]], axis=1)

    return extend


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
