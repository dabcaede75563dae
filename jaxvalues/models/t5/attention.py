"""T5's attention: not scaled, with a bias for the distance of query and key (see `layers.distance_bias`)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxvalues.models.layers.attention import Extend, KeysValues, attention
from jaxvalues.models.layers.dense import Dense
from jaxvalues.models.layers.initializers import normal
from jaxvalues.models.layers.products import matmul


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

    def drops(self) -> bool:
        """Whether there is dropout beside the projections of keys and values."""
        return self.key.drops() or self.value.drops()

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
        init = normal(self.factor * deviation)
        return Dense(features, use_bias=False, dtype=self.dtype, kernel_init=init)
