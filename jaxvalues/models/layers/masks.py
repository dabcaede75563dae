"""Who sees whom in a causal network, and where each token stands: pure functions of attention masks.

`sees` is boolean everywhere, [B, T, S], True where the query t may look at the key s.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def visible(attention_mask: jax.Array, prompt: int, past: jax.Array) -> jax.Array:
    """`sees` for attention, [B, 1, P + T, S + P + T]: T tokens after a `prompt` of P, after S keys of an earlier call.

    `attention_mask` is [B, T], nonzero on real tokens, each of which sees those up to itself, or [B, T, T], who sees
    whom. Everyone sees the whole prompt, which sees only itself, and the keys that `past` [B, S] says are real.
    """
    sees = causal(attention_mask) if attention_mask.ndim == 2 else attention_mask != 0
    batch, tokens, _ = sees.shape
    behind = jnp.concatenate([jnp.ones((batch, tokens, prompt), bool), sees], axis=2)
    own = jnp.broadcast_to(jnp.tril(jnp.ones((prompt, prompt + tokens), bool)), (batch, prompt, prompt + tokens))
    sees = jnp.concatenate([own, behind], axis=1)
    earlier = jnp.broadcast_to(past[:, None, :], (batch, prompt + tokens, past.shape[1]))
    return jnp.concatenate([earlier, sees], axis=2)[:, None]


def causal(attention_mask: jax.Array) -> jax.Array:
    """`sees` [B, T, T] of ordinary rows: each token sees the real ones (nonzero in the mask [B, T]) up to itself."""
    tokens = attention_mask.shape[1]
    return jnp.tril(jnp.ones((tokens, tokens), bool)) & (attention_mask != 0)[:, None, :]


def count_positions(attention_mask: jax.Array) -> jax.Array:
    """Positions [B, T] that count real tokens alone, from 0, wherever the padding is; padding's are in range."""
    return jnp.maximum(jnp.cumsum(attention_mask != 0, axis=-1) - 1, 0)


def last_token(attention_mask: jax.Array) -> jax.Array:
    """The index of each row's last real token, [...] from a mask [..., T] padded left, right or not at all.

    T - 1 for a row without one.
    """
    return attention_mask.shape[-1] - 1 - jnp.argmax(attention_mask[..., ::-1] != 0, axis=-1)
