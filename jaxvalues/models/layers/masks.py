"""Attention masks, the positions of tokens, and the choice of some positions: pure functions.

A mask of attention is boolean, [B, T, S], True where query t may attend to key s.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def pad_left(x: jax.Array, size: int, value: bool | int) -> jax.Array:
    """`x` [B, T] behind `size` P columns of `value`, [B, P + T]: extends a mask of tokens to a prompt or a prefix."""
    return jnp.pad(x, ((0, 0), (size, 0)), constant_values=value)


def select_positions(x: jax.Array, positions: int | jax.Array | None) -> jax.Array:
    """`x` [B, T, D] at one position of all rows, [B, 1, D]; at `positions` [B, K] of each row, [B, K, D]; or all of
    it for None."""
    if positions is None:
        return x
    if isinstance(positions, int):
        return x[:, positions : positions + 1]
    return jnp.take_along_axis(x, positions[..., None], axis=1)


def causal_mask(attention_mask: jax.Array, prompt: int, past: jax.Array) -> jax.Array:
    """The mask of T tokens behind a `prompt` of P and S keys of an earlier call: [B, 1, P + T, S + P + T].

    `attention_mask` is [B, T], nonzero on real tokens, each of which attends to those up to itself; or [B, T, T],
    nonzero where a token may attend to another. Every token attends to the whole prompt, the prompt to itself alone,
    and both to the keys that `past` [B, S] marks as real.
    """
    mask = causal(attention_mask) if attention_mask.ndim == 2 else attention_mask != 0
    batch, tokens, _ = mask.shape
    behind = jnp.concatenate([jnp.ones((batch, tokens, prompt), bool), mask], axis=2)
    own = jnp.broadcast_to(jnp.tril(jnp.ones((prompt, prompt + tokens), bool)), (batch, prompt, prompt + tokens))
    mask = jnp.concatenate([own, behind], axis=1)
    earlier = jnp.broadcast_to(past[:, None, :], (batch, prompt + tokens, past.shape[1]))
    return jnp.concatenate([earlier, mask], axis=2)[:, None]


def causal(attention_mask: jax.Array) -> jax.Array:
    """The mask [B, T, T] of ordinary rows: a token attends to the real ones (nonzero in [B, T]) up to itself."""
    tokens = attention_mask.shape[1]
    return jnp.tril(jnp.ones((tokens, tokens), bool)) & (attention_mask != 0)[:, None, :]


def count_positions(attention_mask: jax.Array) -> jax.Array:
    """Positions [B, T] that count real tokens alone, from 0, wherever the padding is; those of padding are in range."""
    return jnp.maximum(jnp.cumsum(attention_mask != 0, axis=-1) - 1, 0)


def last_token(attention_mask: jax.Array) -> jax.Array:
    """The index of each row's last real token, [...] from a mask [..., T] padded left, right or not at all.

    It is T - 1 for a row without a real token.
    """
    return attention_mask.shape[-1] - 1 - jnp.argmax(attention_mask[..., ::-1] != 0, axis=-1)
