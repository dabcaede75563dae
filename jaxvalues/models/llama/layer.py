"""One layer of the Llama family: grouped-query attention with rotary positions, and a gated feed-forward block.

Gemma's has a norm before and one after each block; the others one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvalues.models.layers.attention import preceded_by
from jaxvalues.models.layers.branches import Branches, attend
from jaxvalues.models.layers.dense import normal_dense
from jaxvalues.models.layers.masks import select_positions
from jaxvalues.models.layers.norm import RMSNorm
from jaxvalues.models.layers.ops import activation, dropout
from jaxvalues.models.llama.config import LlamaConfig
from jaxvalues.models.llama.rotary import rotate


class Tables(NamedTuple):
    """What all layers of a kind share in a call: the `mask` [B, 1, T, S + T], True where a query may attend to a key,
    and cosines and sines [B, T, H / 2] of the queries' rotary positions."""

    mask: jax.Array
    cos: jax.Array
    sin: jax.Array


class LlamaLayer(nn.Module):
    """One pre-norm transformer layer: x [B, T, D] to the same, and its keys and values [2, B, T, K, H].

    `prefix` [2, P, K, H] are keys, already turned, and values before those of every row, and each of `cached`
    [2, B, K, R, H] are those of R earlier positions. With `positions` [B, C] only the output there is computed,
    [B, C, D], from all of x. If rows end in `branches`, scores between these, which the mask hides, are not computed.
    """

    config: LlamaConfig
    dtype: jnp.dtype = jnp.float32
    branches: Branches | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        tables: Tables,
        rng: jax.Array | None = None,
        prefix: jax.Array | None = None,
        positions: jax.Array | None = None,
        *,
        cached: Sequence[jax.Array] = (),
    ) -> tuple[jax.Array, jax.Array]:
        c = self.config
        rngs = (None,) * 3 if rng is None else jax.random.split(rng, 3)
        a, new = LlamaAttention(c, self.dtype, self.branches, name="attention")(
            self._norm("attention_norm")(x), tables, rngs[0], prefix, positions, cached=cached
        )
        if c.gemma:
            a = self._norm("attention_output_norm")(a)
        x = select_positions(x, positions) + dropout(a, c.hidden_dropout_prob, rngs[1])
        m = LlamaMLP(c, self.dtype, name="mlp")(self._norm("mlp_norm")(x))
        if c.gemma:
            m = self._norm("mlp_output_norm")(m)
        return x + dropout(m, c.hidden_dropout_prob, rngs[2]), new

    def _norm(self, name: str) -> RMSNorm:
        return rms_norm(self.config, self.dtype, name)


class LlamaAttention(nn.Module):
    """Grouped-query attention with its projections; arguments as in `LlamaLayer`."""

    config: LlamaConfig
    dtype: jnp.dtype = jnp.float32
    branches: Branches | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        tables: Tables,
        rng: jax.Array | None = None,
        prefix: jax.Array | None = None,
        positions: jax.Array | None = None,
        *,
        cached: Sequence[jax.Array] = (),
    ) -> tuple[jax.Array, jax.Array]:
        c = self.config
        asked, (mask, cos, sin) = x, tables
        key, value = (self._heads(x, c.num_key_value_heads, name) for name in ("key", "value"))
        key = rotate(self._normalised(key, "key_norm"), cos, sin)
        new = jnp.stack([key, value])
        key, value = preceded_by(prefix)((key, value))
        if positions is not None:
            asked, cos, sin = (select_positions(each, positions) for each in (x, cos, sin))
            mask = jnp.take_along_axis(mask, positions[:, None, :, None], axis=2)
        query = self._heads(asked, c.num_attention_heads, "query")
        query = rotate(self._normalised(query, "query_norm"), cos, sin)
        out = attend(
            query,
            key,
            value,
            self.branches,
            mask=mask,
            cached=cached,
            scale=c.query_scale,
            cap=c.attn_logit_softcapping,
            dropout_rate=c.attention_probs_dropout_prob,
            dropout_rng=rng,
        )
        flat = out.reshape(*out.shape[:2], c.num_attention_heads * c.head_dim)
        return normal_dense(c, c.hidden_size, self.dtype, "output", use_bias=c.output_bias)(flat), new

    def _heads(self, x: jax.Array, heads: int, name: str) -> jax.Array:
        """A projection of x [B, T, D] to [B, T, heads, H]."""
        c = self.config
        projected = normal_dense(c, heads * c.head_dim, self.dtype, name, use_bias=c.qkv_bias)(x)
        return projected.reshape(*x.shape[:2], heads, c.head_dim)

    def _normalised(self, x: jax.Array, name: str) -> jax.Array:
        return rms_norm(self.config, self.dtype, name)(x) if self.config.qk_norm else x


class LlamaMLP(nn.Module):
    """The gated feed-forward block (SwiGLU, GeGLU; Shazeer, 2020): [B, T, D] to [B, T, F] to [B, T, D]."""

    config: LlamaConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        dense = partial(normal_dense, c, dtype=self.dtype, use_bias=c.mlp_bias)
        gate = activation(c.hidden_act)(dense(c.intermediate_size, name="gate")(x))
        return dense(c.hidden_size, name="down")(gate * dense(c.intermediate_size, name="up")(x))


def rms_norm(config: LlamaConfig, dtype: jnp.dtype, name: str | None = None) -> RMSNorm:
    """The norm of the family, with Gemma's plus one where the config says so."""
    return RMSNorm(config.rms_norm_eps, dtype, config.gemma, name=name)
