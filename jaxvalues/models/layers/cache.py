"""The keys and values of earlier tokens in a causal network, so that only the next tokens are computed.

A cache is a value: `extend` of a network takes one and returns the next. Its shapes never change, so one compiled step
decodes a text of any length. Each step writes a cache anew, so a loop over many steps writes into a small one, behind a
large one that it only reads, and joins them from time to time (`append`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxvalues.errors import UserError


class Cache(NamedTuple):
    """Keys and values in S slots.

    `kv` [L, 2, B, K, S, H] are those of every layer, head by head, as attention reads them; `real` [B, S] is True in
    slots whose token may be attended to; `length` is the first free slot, the same for every row (padding takes slots
    too).
    """

    kv: jax.Array
    real: jax.Array
    length: jax.Array


def empty_cache(network: Any, rows: int, slots: int, *, prefix: jax.Array | None = None) -> Cache:
    """A cache for `rows` B texts of `slots` S tokens, prompt, prefix and padding included.

    `network` is a `Decoder`; `prefix` [L, 2, P, K, H] takes the first slots. Raises `UserError` for more slots than the
    network has positions.
    """
    c = network.config
    if slots > c.max_tokens:
        raise UserError(f"a cache of {slots} slots was asked for, but this {c.model_type} model reads {c.max_tokens}")
    shape = (c.num_layers, 2, rows, c.key_value_heads, slots, c.head_size)
    cache = Cache(jnp.zeros(shape, network.dtype), jnp.zeros((rows, slots), bool), jnp.int32(0))
    if prefix is None:
        return cache
    size = prefix.shape[2]
    return Cache(
        cache.kv.at[..., :size, :].set(prefix.swapaxes(2, 3)[:, :, None].astype(network.dtype)),
        cache.real.at[:, :size].set(True),
        jnp.int32(size),
    )


def repeat_cache(cache: Cache, times: int) -> Cache:
    """A cache of B * K rows, each row repeated `times` K times: K texts with one beginning, which is read once."""
    return Cache(jnp.repeat(cache.kv, times, axis=2), jnp.repeat(cache.real, times, axis=0), cache.length)


def to_bits(x: jax.Array) -> jax.Array:
    """Numbers of bfloat16 as whole numbers of the same bits, others as they are; without a gradient.

    To write into a part of a bfloat16 array, XLA on CPU converts all of it to float32 and back.
    """
    x = lax.stop_gradient(x)
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def from_bits(bits: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The numbers of this `dtype` from which `to_bits` made these."""
    return lax.bitcast_convert_type(bits, dtype)


def as_prefix(cache: Cache) -> jax.Array:
    """The keys and values of the first row of a cache, as a prefix [L, 2, S, K, H] of other texts."""
    return cache.kv[:, :, 0].swapaxes(2, 3)


def append(cache: Cache, recent: Cache) -> Cache:
    """`cache` with the tokens of `recent`, which has no more slots, behind its own.

    If there are more of them than free slots, all keys and values that are written are NaN, so that no later result
    looks right.
    """
    slots, size = cache.real.shape[1], recent.real.shape[1]
    first = jnp.minimum(cache.length, slots - size)
    moved = cache.length - first  # a block near the end begins with tokens that are in the cache already
    number = jnp.arange(size) - moved
    is_new = (number >= 0) & (number < recent.length)
    kv = lax.dynamic_slice_in_dim(cache.kv, first, size, axis=4)
    kv = jnp.where(is_new[:, None], jnp.roll(recent.kv, moved, axis=4), kv)
    real = lax.dynamic_slice_in_dim(cache.real, first, size, axis=1)
    real = jnp.where(is_new, jnp.roll(recent.real, moved, axis=1), real)
    length = cache.length + recent.length
    kv = jnp.where(length <= slots, kv, jnp.nan)
    return Cache(
        lax.dynamic_update_slice_in_dim(cache.kv, kv, first, axis=4),
        lax.dynamic_update_slice_in_dim(cache.real, real, first, axis=1),
        length,
    )
