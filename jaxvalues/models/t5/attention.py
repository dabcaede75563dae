"""T5's attention: not scaled, with a bias for the distance of query and key (Raffel et al., 2020, section 2.1).

Distances fall into buckets, one per distance nearby and logarithmic ones far away. A table holds a bias for each bucket
and head. It is looked up once per distance and then shifted (`attention.shift`); Hugging Face looks it up for every
pair of positions.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxvalues.models.layers.attention import Extend, KeysValues, attention, shift
from jaxvalues.models.layers.dense import Dense
from jaxvalues.models.layers.products import matmul


def distance_buckets(num_buckets: int, max_distance: int, bidirectional: bool) -> np.ndarray:
    """The bucket of each distance key - query from -M to M, [2M + 1], where M is `max_distance`.

    If `bidirectional`, half of the buckets is for keys before the query and half for keys after it. Otherwise all are
    for keys before it; those after it, which a causal mask hides, share the bucket of distance 0.
    """
    size = num_buckets // 2 if bidirectional else num_buckets
    exact = size // 2
    far = np.arange(max_distance + 1)
    # In float32 as in the original, so that rounding puts every distance into the same bucket.
    ratio = np.maximum(far, exact).astype(np.float32) / np.float32(exact)
    steps = np.log(ratio) / np.float32(np.log(max_distance / exact)) * np.float32(size - exact)
    near = np.where(far < exact, far, np.minimum(exact + steps.astype(np.int64), size - 1))
    ahead = near[1:] + size if bidirectional else np.zeros(max_distance, np.int64)
    return np.concatenate([near[::-1], ahead])


def distance_bias(table: jax.Array, buckets: np.ndarray, tokens: int, keys: int, start: jax.Array | int) -> jax.Array:
    """The bias [1, N, T, S] of the scores of T queries at the positions from `start` and S keys at 0 to S - 1.

    `table` [buckets, N] holds the biases; `buckets` are `distance_buckets`; `start` may be traced.
    """
    farthest = len(buckets) // 2
    distances = jnp.arange(tokens + keys) - (start + tokens - 1)
    rows = jnp.take(buckets, jnp.clip(distances, -farthest, farthest) + farthest)
    bias = table.take(rows, axis=0).T  # [N, T + S]
    return shift(jnp.broadcast_to(bias[:, None], (len(bias), tokens, tokens + keys)))[None]


def write_to(memory: KeysValues, start: jax.Array) -> Extend:
    """A function that writes the keys and values of x into `memory`, from the slot `start` on."""
    return lambda new: tuple(lax.dynamic_update_slice_in_dim(m, n, start, 1) for m, n in zip(memory, new, strict=True))


class T5Attention(nn.Module):
    """Multi-head attention without biases; heads of any size, N · H need not be D. Initialised as Hugging Face does."""

    width: int
    num_heads: int
    head_size: int
    factor: float
    dropout_rate: float
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        inner = self.num_heads * self.head_size
        self.query = self._dense(inner, (self.width * self.head_size) ** -0.5)
        self.key = self._dense(inner, self.width**-0.5)
        self.value = self._dense(inner, self.width**-0.5)
        self.output = self._dense(self.width, inner**-0.5)

    def keys_values(self, x: jax.Array) -> KeysValues:
        """The keys and values of x [B, S, D]."""
        return self._heads(self.key(x)), self._heads(self.value(x))

    def __call__(
        self,
        x: jax.Array,
        memory: KeysValues,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        rng: jax.Array | None = None,
    ) -> jax.Array:
        """From x [B, T, D] to `memory`: [B, T, D]; `mask` and `bias` broadcast to [B, N, T, S]."""
        query = self._heads(self.query(x))
        out = attention(
            query, *memory, mask=mask, bias=bias, scale=1.0, dropout_rate=self.dropout_rate, dropout_rng=rng
        )
        return self.output(out.reshape(*x.shape[:2], -1))

    def attend_to_states(
        self, x: jax.Array, hidden: jax.Array, mask: jax.Array | None = None, rng: jax.Array | None = None
    ) -> jax.Array:
        """The result of attention from x [B, T, D] to the `keys_values` of `hidden` [B, S, D], without making these.

        q · (h W) is (W q) · h, and a weighted sum of h W is the sum of h, times W. So the queries of all heads attend
        to `hidden` itself. This takes T · N · S · D multiplications instead of S · D · N · H, fewer while T < H.
        """
        query = self._heads(self.query(x))
        rows, tokens, heads, _ = query.shape
        query = query.transpose(2, 0, 1, 3).reshape(heads, rows * tokens, -1)
        query = self.key.with_merged_kernel(lambda kernel, q: matmul(q, self._by_head(kernel)), query)
        query = query.astype(self.dtype).reshape(heads, rows, tokens, -1).transpose(1, 2, 0, 3)
        shared = hidden[:, :, None]  # one "head" for the queries of all
        out = attention(
            query.reshape(rows, -1, 1, self.width), shared, shared,
            mask=mask, scale=1.0, dropout_rate=self.dropout_rate, dropout_rng=rng,
        ).reshape(query.shape)  # fmt: skip
        out = out.transpose(2, 0, 1, 3).reshape(heads, rows * tokens, -1)
        out = self.value.with_merged_kernel(lambda kernel, o: matmul(o, self._by_head(kernel).swapaxes(1, 2)), out)
        out = out.astype(self.dtype).reshape(heads, rows, tokens, -1)
        return self.output(out.transpose(1, 2, 0, 3).reshape(rows, tokens, -1))

    def _by_head(self, kernel: jax.Array) -> jax.Array:
        """A kernel [D, N · H] as [N, H, D]."""
        return kernel.reshape(-1, self.num_heads, self.head_size).transpose(1, 2, 0)

    def _heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.num_heads, self.head_size)

    def _dense(self, features: int, deviation: float) -> Dense:
        init = nn.initializers.normal(self.factor * deviation)
        return Dense(features, use_bias=False, dtype=self.dtype, kernel_init=init)
