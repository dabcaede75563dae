"""Twenty questions in one forward pass: an argument read once, and K suffixes that branch from it.

    [argument | suffix 1 | suffix 2 | ... | suffix K]

is one row of T + K * S tokens in which a suffix sees the argument and itself, and stands right behind the argument's
last real token. Its logits are those of [argument | suffix k] alone. For an argument of 48 tokens and 20 suffixes of 12
that is 288 tokens in the place of 1200, and a quarter of the FLOPs of GPT-2 small. Suffixes that read the argument from
a cache repeated K times (`jaxvalues.models.cache.repeat_cache`) see no masked keys of each other: 4 % fewer FLOPs here,
10 % with suffixes of 30.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvalues.models.masks import count_positions, last_token


class Packed(NamedTuple):
    """What a network is given, with R = T + K * S: `input_ids` [B, R]; `attention_mask` [B, R, R], who sees whom;
    `position_ids` [B, R]; and `last` [B, K], where each branch's last real token stands."""

    input_ids: jax.Array
    attention_mask: jax.Array
    position_ids: jax.Array
    last: jax.Array


def pack(argument_ids: jax.Array, argument_mask: jax.Array, suffix_ids: jax.Array, suffix_mask: jax.Array) -> Packed:
    """Pack arguments [B, T] and suffixes [B, K, S], or [K, S] where all arguments have the same, with their masks.

    Padding may stand left or right in either. The longest position is T + S, however many branches there are. A suffix
    without a real token asks at the argument's last one.
    """
    (batch, tokens), (branches, size) = argument_ids.shape, suffix_ids.shape[-2:]
    suffix_ids, suffix_mask = (jnp.broadcast_to(x, (batch, branches, size)) for x in (suffix_ids, suffix_mask))

    def lay(argument: jax.Array, suffixes: jax.Array) -> jax.Array:
        return jnp.concatenate([argument, suffixes.reshape(batch, -1)], axis=1)  # [B, R]

    # Branch 0 is the argument, which all see.
    branch = np.concatenate([np.zeros(tokens, int), np.repeat(np.arange(1, branches + 1), size)])
    same = (branch == 0) | (branch[:, None] == branch)  # [R, R], query by key
    sees = np.tril(same) & (lay(argument_mask, suffix_mask) != 0)[:, None, :]

    alone = jnp.broadcast_to(argument_mask[:, None, :], (batch, branches, tokens))
    alone = jnp.concatenate([alone, suffix_mask], axis=2)  # [B, K, T + S], the masks of the branches as single rows
    positions = count_positions(alone)[:, :, tokens:]
    last = last_token(alone)
    last = jnp.where(last < tokens, last, last + np.arange(branches) * size)
    return Packed(lay(argument_ids, suffix_ids), sees, lay(count_positions(argument_mask), positions), last)
