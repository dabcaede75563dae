"""Disentangled attention (He et al., 2021, "DeBERTa", eq. 4), without gathers over [B, N, T, T].

The score of query i and key j is q_i·k_j plus two terms for their distance: q_i·K(i - j), "c2p", and k_j·Q(i - j),
"p2c". K and Q are projections of a table of relative embeddings that all layers share. Here each query has one product
per distance, [B, N, T, 2T], and row i is then shifted by i (Transformer-XL's relative shift: reshape and slice).
Hugging Face gathers T of them for each row, which is slow on TPU, and in the backward pass everywhere.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvalues.errors import UserError
from jaxvalues.models.deberta.config import DebertaConfig
from jaxvalues.models.layers.attention import attention, preceded_by, shift
from jaxvalues.models.layers.dense import Dense, normal_dense
from jaxvalues.models.layers.masks import select_positions
from jaxvalues.models.layers.ops import dropout
from jaxvalues.models.layers.products import matmul

FORMS = ("shift", "gather")


def log_buckets(distance: np.ndarray, buckets: int, max_positions: int) -> np.ndarray:
    """DeBERTa-v2's buckets of signed distances: exact up to buckets / 2, logarithmic from there to `max_positions`."""
    mid = buckets // 2
    # In float32 as in the original, so that rounding puts every distance into the same bucket.
    far = np.maximum(np.abs(distance), mid).astype(np.float32) / np.float32(mid)
    steps = np.log(far) / np.log(np.float32((max_positions - 1) / mid)) * np.float32(mid - 1)
    return np.where(np.abs(distance) <= mid, distance, np.sign(distance) * (np.ceil(steps) + mid)).astype(np.int64)


def relative_window(tokens: int, buckets: int, max_positions: int) -> tuple[slice, np.ndarray]:
    """The rows of the table of relative embeddings that an input of T `tokens` needs, known before anything runs.

    Returns a slice of the table, and `columns` [2T + 1], the row in it of each distance from -T to T. Distances beyond
    the table share its ends. Without `buckets` (0 or less) each distance has its own row.
    """
    distance, span = np.arange(-tokens, tokens + 1), max_positions
    if buckets > 0:
        distance, span = log_buckets(distance, buckets, max_positions), buckets
    rows = np.clip(distance + span, 0, 2 * span - 1)
    return slice(int(rows[0]), int(rows[-1]) + 1), rows - rows[0]


def content_to_position(
    query: jax.Array, rows: jax.Array, columns: np.ndarray, form: str = "shift", position: int | None = None
) -> jax.Array:
    """c2p: the products of query i with the row of the distance i - j, [B, N, Q, T] float32.

    `query` [B, Q, N, H] is of all T tokens, or of the one at the position `position`; `rows` [R, N, H] and `columns`
    [2T + 1] are those of `relative_window`, projected. `form` "gather" is Hugging Face's, kept for
    comparison with "shift".
    """
    tokens = len(columns) // 2
    chex.assert_shape(query, (None, tokens if position is None else 1, *rows.shape[1:]))
    if position is not None:
        return _products(query, _select(rows, _from(position, columns)))
    if form == "shift":
        return shift(_products(query, _select(rows, columns[-2::-1])))  # the distances T - 1, ..., -T
    return jnp.take_along_axis(_products(query, rows), _distances(columns)[None, None], axis=-1)


def position_to_content(
    key: jax.Array, rows: jax.Array, columns: np.ndarray, form: str = "shift", position: int | None = None
) -> jax.Array:
    """p2c: the products of key j [B, T, N, H] with the row of the distance i - j, [B, N, Q, T] float32.

    As `content_to_position`; with a `position`, i is that one and Q is 1.
    """
    tokens = len(columns) // 2
    chex.assert_shape(key, (None, tokens, *rows.shape[1:]))
    if position is not None:
        rows = _select(rows, _from(position, columns))
        return jnp.einsum("btnh,tnh->bnt", key, rows, preferred_element_type=jnp.float32)[:, :, None]
    if form == "shift":
        scores = shift(_products(key, _select(rows, columns[1:])))  # the distances 1 - T, ..., T
    else:
        scores = jnp.take_along_axis(_products(key, rows), _distances(columns).T[None, None], axis=-1)
    return scores.swapaxes(-1, -2)


def _from(position: int, columns: np.ndarray) -> np.ndarray:
    """The columns of the distances i - j of one position i: i, i - 1, ..., i + 1 - T."""
    return columns[position + len(columns) // 2 : position : -1]


def _distances(columns: np.ndarray) -> np.ndarray:
    """The column of i - j, [T, T]."""
    i = np.arange(len(columns) // 2)
    return columns[len(i) + i[:, None] - i[None, :]]


def _products(x: jax.Array, rows: jax.Array) -> jax.Array:
    """`x` [B, T, N, H] with every row [R, N, H]: [B, N, T, R], float32."""
    batch, tokens, heads, size = x.shape
    # One product per head over all tokens of the batch: on CPU up to a quarter faster than the einsum "btnh,rnh->bntr".
    flat = x.transpose(2, 0, 1, 3).reshape(heads, batch * tokens, size)
    scores = matmul(flat, rows.transpose(1, 2, 0))
    return scores.reshape(heads, batch, tokens, -1).swapaxes(0, 1)


def _select(rows: jax.Array, index: np.ndarray) -> jax.Array:
    """rows[index]: a slice, up or down, unless several distances share a row (beyond the exact buckets)."""
    step = index[1] - index[0] if len(index) > 1 else 1
    if abs(step) != 1 or (np.diff(index) != step).any():
        return rows.take(index, axis=0, mode="clip")
    piece = rows[index.min() : index.max() + 1]
    return piece if step == 1 else piece[::-1]


class DebertaAttention(nn.Module):
    """Multi-head disentangled attention with its projections; arguments and shapes are those of `DebertaLayer`.

    `form` is how relative scores are laid out, "shift" or "gather"; both give the same numbers.
    """

    config: DebertaConfig
    dtype: jnp.dtype = jnp.float32
    form: str = "shift"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        relative: jax.Array | None = None,
        mask: jax.Array | None = None,
        rng: jax.Array | None = None,
        prefix: jax.Array | None = None,
        *,
        position: int | None = None,
    ) -> jax.Array:
        c = self.config
        if self.form not in FORMS:
            raise UserError(f"the form of relative attention is '{self.form}', expected one of {', '.join(FORMS)}")
        rngs = (None,) * 2 if rng is None else jax.random.split(rng)
        project = self._fused if c.model_type == "deberta" else self._separate
        query, key, value, to_key, to_query = project(x, position)
        scale = (query.shape[-1] * (1 + len(c.pos_att_type))) ** -0.5

        bias = None
        if relative is not None:
            relative = dropout(relative, c.hidden_dropout_prob, rngs[1])
            _, columns = relative_window(x.shape[1], c.position_buckets, c.relative_span)
            if "c2p" in c.pos_att_type:
                bias = content_to_position(query, scale * self._heads(to_key(relative)), columns, self.form, position)
            if "p2c" in c.pos_att_type:
                rows = scale * self._heads(to_query(relative))
                p2c = position_to_content(key, rows, columns, self.form, position)
                bias = p2c if bias is None else bias + p2c
            if prefix is not None and bias is not None:
                bias = jnp.pad(bias, [(0, 0)] * 3 + [(prefix.shape[1], 0)])
        key, value = preceded_by(prefix)((key, value))
        out = attention(
            query, key, value,
            mask=mask, bias=bias, scale=scale, dropout_rate=c.attention_probs_dropout_prob, dropout_rng=rngs[0],
        )  # fmt: skip
        return self._dense("output")(out.reshape(*out.shape[:2], c.hidden_size))

    def _separate(self, x: jax.Array, position: int | None) -> tuple[Any, ...]:
        """Versions 2 and 3: query [B, Q, N, H], key and value [B, T, N, H]; then the projections of relative
        embeddings for c2p and for p2c."""
        query, key, value = (self._dense(name) for name in ("query", "key", "value"))
        relative = (key, query) if self.config.share_att_key else map(self._dense, ("relative_key", "relative_query"))
        queries = select_positions(x, position)
        return self._heads(query(queries)), self._heads(key(x)), self._heads(value(x)), *relative

    def _fused(self, x: jax.Array, position: int | None) -> tuple[Any, ...]:
        """Version 1: the same, from one projection that holds query, key and value of a head side by side."""
        c = self.config
        fused = self._dense("in_proj", 3 * c.hidden_size, use_bias=False)(x)
        query, key, value = jnp.split(self._heads(fused), 3, axis=-1)
        query = select_positions(query, position) + self._heads(Bias(c.hidden_size, self.dtype, name="query")())
        value += self._heads(Bias(c.hidden_size, self.dtype, name="value")())
        return query, key, value, self._dense("relative_key", use_bias=False), self._dense("relative_query")

    def _heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.config.num_attention_heads, -1)

    def _dense(self, name: str, features: int | None = None, use_bias: bool = True) -> Dense:
        return normal_dense(self.config, features or self.config.hidden_size, self.dtype, name, use_bias=use_bias)


class Bias(nn.Module):
    """A bias that stands apart from its kernel, under the key "bias"."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
