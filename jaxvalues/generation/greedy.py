"""Greedy decoding: generates the most likely token at every step, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxvalues.models import T5, Prefix, Prompt, empty_cache
from jaxvalues.models.layers.masks import last_token
from jaxvalues.tuning import Bound

Step = Callable[
    [jax.Array, jax.Array, Any], tuple[jax.Array, Any]
]  # (token [B], real [B], cache) -> logits [B, V], cache


def greedy(
    module: nn.Module, bound: Bound, batch: dict[str, jax.Array], *, length: int, end: int, pad: int
) -> jax.Array:
    """Generates up to M = `length` tokens after each row of a batch: ids [B, M], with `pad` after the token `end`.

    It is a pure function with fixed shapes. It stops as soon as all rows have generated `end`.
    """
    start = _start_t5 if isinstance(module, T5) else _start_causal
    logits, cache, step = start(module, bound, batch, length)
    rows = len(batch["input_ids"])

    def is_unfinished(state: tuple) -> jax.Array:
        i, _, _, done, _ = state
        return (i < length) & ~done.all()

    def add_token(state: tuple) -> tuple:
        i, logits, cache, done, answers = state
        token = jnp.where(done, pad, jnp.argmax(logits, axis=-1).astype(jnp.int32))
        answers = answers.at[:, i].set(token)
        done |= token == end
        logits, cache = step(token, ~done, cache)
        return i + 1, logits, cache, done, answers

    answers = jnp.full((rows, length), pad, jnp.int32)
    state = (jnp.int32(0), logits, cache, jnp.zeros(rows, bool), answers)
    *_, answers = lax.while_loop(is_unfinished, add_token, state)
    return answers


def _start_causal(
    module: nn.Module, bound: Bound, batch: dict[str, jax.Array], length: int
) -> tuple[jax.Array, Any, Step]:
    """The logits [B, V] of the first new token, the cache of the rows, and the step function for the next tokens."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    sizes = [0 if bound.prefix is None else bound.prefix.shape[2], 0 if bound.prompt is None else len(bound.prompt)]
    cache = empty_cache(module.encoder, len(ids), sum(sizes) + ids.shape[1] + length, prefix=bound.prefix)
    apply = _bind_apply(module, bound)
    logits, cache = apply(ids, mask, cache, prompt=bound.prompt, positions=last_token(mask)[:, None], method="extend")

    def step(token: jax.Array, real: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
        logits, cache = apply(token[:, None], real[:, None].astype(jnp.int32), cache, method="extend")
        return logits[:, 0], cache

    return logits[:, 0], cache, step


def _start_t5(module: T5, bound: Bound, batch: dict[str, jax.Array], length: int) -> tuple[jax.Array, Any, Step]:
    """As `_start_causal`, for T5. The decoder begins with its start token."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    prompt, prefix = bound.prompt or Prompt(), bound.prefix or Prefix()
    apply = _bind_apply(module, bound)
    hidden = apply(ids, mask, prompt=prompt.encoder, prefix=prefix.encoder, method="encode")
    given = {"prompt": prompt.decoder, "prefix": prefix.decoder, "cross_prefix": prefix.cross}
    cache = apply(hidden, mask, length + 1, **given, method="init_cache")

    def step(token: jax.Array, real: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
        logits, cache = apply(token[:, None], cache, real[:, None].astype(jnp.int32), method="decode_step")
        return logits[:, 0], cache

    first = jnp.full(len(ids), module.config.decoder_start_token_id, jnp.int32)
    logits, cache = step(first, jnp.ones(len(ids), bool), cache)
    return logits, cache, step


def _bind_apply(module: nn.Module, bound: Bound) -> Callable[..., Any]:
    return lambda *args, **options: module.apply({"params": bound.params}, *args, **options)
