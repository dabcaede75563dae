"""The encoder and the decoder of a T5, run at once or, the decoder, token by token with a cache."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxvalues.errors import UserError
from jaxvalues.models.layers.attention import Extend, KeysValues, preceded_by
from jaxvalues.models.layers.dense import Dense
from jaxvalues.models.layers.distance_bias import distance_bias, distance_buckets
from jaxvalues.models.layers.embedding import Embedding
from jaxvalues.models.layers.initializers import normal
from jaxvalues.models.layers.layout import Segments, segment_key
from jaxvalues.models.layers.masks import pad_left
from jaxvalues.models.layers.norm import RMSNorm
from jaxvalues.models.layers.ops import activation, dropout
from jaxvalues.models.layers.stack import layer_keys, layers_of, run_layers
from jaxvalues.models.t5.attention import T5Attention, write_to
from jaxvalues.models.t5.config import T5Config


class T5Cache(NamedTuple):
    """Keys and values of a decoder in S slots, a pytree of fixed shapes."""

    memory: KeysValues  # of self-attention, each [L, B, S, N, H]
    real: jax.Array  # [B, S], True in slots that may be attended to once they are filled
    cross: KeysValues  # of cross-attention, each [L, B, S', N, H]
    cross_real: jax.Array  # [B, S']
    index: jax.Array  # how many slots are filled


def _norm(config: T5Config, dtype: jnp.dtype) -> RMSNorm:
    return RMSNorm(config.layer_norm_epsilon, dtype=dtype)


class T5MLP(nn.Module):
    """The feed-forward block: [B, T, D] to [B, T, F] to [B, T, D]."""

    config: T5Config
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, rng: jax.Array | None = None) -> jax.Array:
        c = self.config
        hidden = activation(c.act)(self._dense("gate" if c.is_gated else "up", c.d_ff, c.d_model)(x))
        if c.is_gated:
            hidden *= self._dense("up", c.d_ff, c.d_model)(x)
        return self._dense("down", c.d_model, c.d_ff)(dropout(hidden, c.dropout_rate, rng))

    def _dense(self, name: str, features: int, inputs: int) -> Dense:
        init = normal(self.config.initializer_factor * inputs**-0.5)
        return Dense(features, use_bias=False, dtype=self.dtype, kernel_init=init, name=name)


class T5Layer(nn.Module):
    """One pre-norm layer of the encoder or, with cross-attention, of the decoder.

    The residual stream x is float32 whatever `dtype` is: its entries grow to thousands, where bfloat16 has steps of
    tens.
    """

    config: T5Config
    is_decoder: bool
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        c = self.config
        sizes = (c.d_model, c.num_heads, c.d_kv, c.initializer_factor, c.dropout_rate, self.dtype)
        self.attention, self.attention_norm = T5Attention(*sizes), _norm(c, self.dtype)
        if self.is_decoder:
            self.cross_attention, self.cross_attention_norm = T5Attention(*sizes), _norm(c, self.dtype)
        self.mlp, self.mlp_norm = T5MLP(c, self.dtype), _norm(c, self.dtype)

    def __call__(
        self,
        x: jax.Array,
        cross: KeysValues | jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        cross_mask: jax.Array | None = None,
        extend: Extend | None = None,
        cross_prefix: jax.Array | None = None,
        rng: jax.Array | None = None,
    ) -> tuple[jax.Array, KeysValues]:
        """The next x [B, T, D], and the keys and values of self-attention, to which `extend` may add others.

        A decoder attends to `cross`: the encoder's output [B, S, D], or its `cross_memory`, made before.
        """
        rate = self.config.dropout_rate
        rngs = (None,) * 6 if rng is None else jax.random.split(rng, 6)
        y = self.attention_norm(x)
        memory = self.attention.keys_values(y)
        memory = memory if extend is None else extend(memory)
        x += dropout(self.attention(y, memory, mask, bias, rngs[0]), rate, rngs[1])
        if self.is_decoder:
            y = self.cross_attention_norm(x)
            x += dropout(self._cross(y, cross, cross_prefix, cross_mask, rngs[2]), rate, rngs[3])
        return x + dropout(self.mlp(self.mlp_norm(x), rngs[4]), rate, rngs[5]), memory

    def _cross(
        self,
        y: jax.Array,
        cross: KeysValues | jax.Array,
        prefix: jax.Array | None,
        mask: jax.Array | None,
        rng: jax.Array | None,
    ) -> jax.Array:
        if not isinstance(cross, tuple):
            # One query is cheaper without keys and values, but a prefix needs them, and dropout in their projections.
            merges = prefix is None and not self.is_initializing() and not self.cross_attention.drops()
            if y.shape[1] == 1 and merges:
                return self.cross_attention.attend_to_states(y, cross, mask, rng)
            cross = self.cross_memory(cross, prefix)
        return self.cross_attention(y, cross, mask, None, rng)

    def cross_memory(self, hidden: jax.Array, prefix: jax.Array | None = None) -> KeysValues:
        """The keys and values of cross-attention to `hidden` [B, S, D], behind those of `prefix` [2, P, N, H]."""
        return preceded_by(prefix)(self.cross_attention.keys_values(hidden))


class T5Stack(nn.Module):
    """The encoder or the decoder: its layers, the bias of distances that they share, and the last norm.

    It takes embeddings and returns the last hidden states alone, so it uses the layer loop (`layers.stack`) and not the
    driver of the networks with one stack (`layers.transformer`).
    """

    config: T5Config
    segments: Segments
    is_decoder: bool
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        c = self.config
        example = jnp.zeros((1, 1, c.d_model))
        self.layers = layers_of(self, self._layer, self.segments, example, example)
        init = normal(c.initializer_factor * c.d_model**-0.5)
        self.relative_bias = Embedding((c.relative_attention_num_buckets, c.num_heads), init)
        self.norm = _norm(c, self.dtype)

    @property
    def _layer(self) -> T5Layer:
        return T5Layer(self.config, self.is_decoder, self.dtype, parent=None)

    @property
    def _num_layers(self) -> int:
        return self.segments[-1][1] + 1

    def __call__(
        self,
        x: jax.Array,
        real: jax.Array,
        hidden: jax.Array | None = None,
        hidden_real: jax.Array | None = None,
        *,
        prefix: jax.Array | None = None,
        cross_prefix: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """The last hidden states [B, T, D] from embeddings x [B, T, D]; a decoder attends to `hidden` [B, S, D] too.

        `real` [B, T] and `hidden_real` [B, S] are True on what may be attended to.
        """
        rate = self.config.dropout_rate
        prefix, cross_prefix = self._checked(prefix, "prefix"), self._checked(cross_prefix, "cross_prefix")
        start = 0 if prefix is None else prefix.shape[2]
        real = extend_mask(real, start + x.shape[1])
        mask, bias = self._mask_and_bias(real, x.shape[1], start)
        cross_mask = None
        if self.is_decoder:
            extra = 0 if cross_prefix is None else cross_prefix.shape[2]
            cross_mask = extend_mask(hidden_real, extra + hidden.shape[1])[:, None, None, :]
        # The dropout keys of the embeddings and of the output follow the last layer's.
        keys = None if deterministic else layer_keys(self.make_rng("dropout"), self._num_layers + 2)
        layer = self._layer

        def apply(leaves: Any, x: jax.Array, extra: Any) -> jax.Array:
            key, prefix, cross_prefix = extra
            x, _ = layer.apply(
                {"params": leaves}, x, hidden,
                mask=mask, bias=bias, cross_mask=cross_mask,
                extend=preceded_by(prefix), cross_prefix=cross_prefix, rng=key,
            )  # fmt: skip
            return x

        (x,) = run_layers(
            apply,
            self.layers,
            dropout(x, rate, None if keys is None else keys[-2]),
            (keys, prefix, cross_prefix),
            segments=self.segments,
            wanted=(self._num_layers,),
            remat=self.remat,
        )
        return dropout(self.norm(x), rate, None if keys is None else keys[-1])

    def init_cache(
        self,
        hidden: jax.Array,
        hidden_real: jax.Array,
        length: int,
        *,
        prefix: jax.Array | None = None,
        cross_prefix: jax.Array | None = None,
    ) -> T5Cache:
        """A decoder's cache with slots for `length` tokens behind the prefix."""
        c, rows, layer = self.config, len(hidden), self._layer
        none = jnp.zeros((self._num_layers, 2, 0, c.num_heads, c.d_kv))
        prefix = none if prefix is None else self._checked(prefix, "prefix")
        cross_prefix = none if cross_prefix is None else self._checked(cross_prefix, "cross_prefix")
        start = prefix.shape[2]

        def slots(each: jax.Array) -> jax.Array:  # [L, P, N, H] -> [L, B, S, N, H]
            empty = jnp.zeros((self._num_layers, rows, start + length, c.num_heads, c.d_kv), self.dtype)
            return empty.at[:, :, :start].set(each[:, None].astype(self.dtype))

        def of_segment(first: int, last: int) -> KeysValues:
            leaves = self.layers[segment_key((first, last))]
            if first == last:
                leaves = jax.tree.map(lambda x: x[None], leaves)
            return lax.map(
                lambda each: layer.apply({"params": each[0]}, hidden, each[1], method="cross_memory"),
                (leaves, cross_prefix[first : last + 1]),
            )

        cross = jax.tree.map(lambda *parts: jnp.concatenate(parts), *(of_segment(*each) for each in self.segments))
        return T5Cache(
            (slots(prefix[:, 0]), slots(prefix[:, 1])),
            jnp.ones((rows, start + length), bool),
            cross,
            extend_mask(hidden_real, cross[0].shape[2]),
            jnp.int32(start),
        )

    def step(self, x: jax.Array, real: jax.Array, cache: T5Cache) -> tuple[jax.Array, T5Cache]:
        """The last hidden states [B, T, D] of the next T embeddings x, and the cache with these in it."""
        tokens, places = x.shape[1], cache.real.shape[1]
        known = lax.dynamic_update_slice_in_dim(cache.real, real, cache.index, 1)
        mask, bias = self._mask_and_bias(known, tokens, cache.index)
        cross_mask, layer = cache.cross_real[:, None, None, :], self._layer

        # The layers read the cache and write their new keys and values beside it, as in `layers.decoder`.
        def apply(leaves: Any, carry: tuple[jax.Array, KeysValues], extra: Any) -> tuple[jax.Array, KeysValues]:
            (x, added), (i, memory, cross) = carry, extra
            x, seen = layer.apply(
                {"params": leaves}, x, cross,
                mask=mask, bias=bias, cross_mask=cross_mask, extend=write_to(memory, cache.index),
            )  # fmt: skip
            new = (lax.dynamic_slice_in_dim(each, cache.index, tokens, 1) for each in seen)
            return x, tuple(each.at[i].set(one) for each, one in zip(added, new, strict=True))

        added = tuple(jnp.zeros((*m.shape[:2], tokens, *m.shape[3:]), m.dtype) for m in cache.memory)
        ((x, added),) = run_layers(
            apply,
            self.layers,
            (x, added),
            (np.arange(self._num_layers), cache.memory, cache.cross),
            segments=self.segments,
            wanted=(self._num_layers,),
        )
        memory = tuple(
            lax.dynamic_update_slice_in_dim(m, new, cache.index, 2) for m, new in zip(cache.memory, added, strict=True)
        )
        # A full cache would be overwritten at its end: tokens that do not fit give NaN.
        x = jnp.where(cache.index + tokens <= places, self.norm(x), jnp.nan)
        return x, cache._replace(memory=memory, real=known, index=cache.index + tokens)

    def _mask_and_bias(self, real: jax.Array, tokens: int, start: jax.Array | int) -> tuple[jax.Array, jax.Array]:
        """Mask and bias, which broadcast to [B, N, T, S], of T queries from the position `start` on and S slots.

        `real` [B, S] is True in slots that may be attended to.
        """
        c, places = self.config, real.shape[1]
        buckets = distance_buckets(
            c.relative_attention_num_buckets, c.relative_attention_max_distance, bidirectional=not self.is_decoder
        )
        mask = real[:, None, None, :]
        if self.is_decoder:
            mask = mask & (jnp.arange(places) <= start + jnp.arange(tokens)[:, None])
        return mask, distance_bias(self.relative_bias(), buckets, tokens, places, start)

    def _checked(self, prefix: jax.Array | None, name: str) -> jax.Array | None:
        c = self.config
        if prefix is not None and (
            prefix.ndim != 5 or (*prefix.shape[:2], *prefix.shape[3:]) != (self._num_layers, 2, c.num_heads, c.d_kv)
        ):
            raise UserError(
                f"the {name} has the shape {list(prefix.shape)}, expected [{self._num_layers}, 2, P, {c.num_heads}, "
                f"{c.d_kv}]: keys and values of P positions for each layer and head"
            )
        return prefix


def extend_mask(real: jax.Array, length: int) -> jax.Array:
    """A mask [B, T], nonzero on real tokens, as booleans [B, length], True for a prompt or a prefix before them."""
    return pad_left(real != 0, length - real.shape[1], True)
