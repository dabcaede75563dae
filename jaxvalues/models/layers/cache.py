"""The keys and values of earlier tokens in a causal network, so that only the next tokens are computed.

A cache is a value: `extend` of a network takes one and returns the next. Its shapes never change, so one compiled step
decodes a text of any length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvalues.errors import UserError


class Cache(NamedTuple):
    """Keys and values in S slots.

    `kv` [L, 2, B, S, K, H] are those of every layer; `real` [B, S] is True in slots whose token may be attended to;
    `length` is the first free slot, the same for every row (padding takes slots too).
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
    heads = (c.key_value_heads, c.head_size)
    cache = Cache(
        jnp.zeros((c.num_layers, 2, rows, slots, *heads), network.dtype), jnp.zeros((rows, slots), bool), jnp.int32(0)
    )
    if prefix is None:
        return cache
    size = prefix.shape[2]
    return Cache(
        cache.kv.at[:, :, :, :size].set(prefix[:, :, None].astype(network.dtype)),
        cache.real.at[:, :size].set(True),
        jnp.int32(size),
    )


def repeat_cache(cache: Cache, times: int) -> Cache:
    """A cache of B * K rows, each row repeated `times` K times: K texts with one beginning, which is read once."""
    return Cache(jnp.repeat(cache.kv, times, axis=2), jnp.repeat(cache.real, times, axis=0), cache.length)
