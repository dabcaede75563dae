"""Greedy decoding: the likeliest token, again and again, with keys and values cached."""

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
    """The ids [B, M] of at most M = `length` tokens that follow each row of a batch; `pad` after the token `end`.

    Pure and of fixed shapes. Stops as soon as every row has ended.
    """
    start = _start_t5 if isinstance(module, T5) else _start_causal
    logits, cache, step = start(module, bound, batch, length)
    rows = len(batch["input_ids"])

    def more(state: tuple) -> jax.Array:
        i, _, _, done, _ = state
        return (i < length) & ~done.all()

    def one(state: tuple) -> tuple:
        i, logits, cache, done, answers = state
        token = jnp.where(done, pad, jnp.argmax(logits, axis=-1).astype(jnp.int32))
        answers = answers.at[:, i].set(token)
        done |= token == end
        logits, cache = step(token, ~done, cache)
        return i + 1, logits, cache, done, answers

    answers = jnp.full((rows, length), pad, jnp.int32)
    *_, answers = lax.while_loop(more, one, (jnp.int32(0), logits, cache, jnp.zeros(rows, bool), answers))
    return answers


def _start_causal(
    module: nn.Module, bound: Bound, batch: dict[str, jax.Array], length: int
) -> tuple[jax.Array, Any, Step]:
    """The logits of the first new token, the cache of the text, and how to go on."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    sizes = [0 if bound.prefix is None else bound.prefix.shape[2], 0 if bound.prompt is None else len(bound.prompt)]
    cache = empty_cache(module.encoder, len(ids), sum(sizes) + ids.shape[1] + length, prefix=bound.prefix)
    apply = _applied(module, bound)
    logits, cache = apply(ids, mask, cache, prompt=bound.prompt, positions=last_token(mask)[:, None], method="extend")

    def step(token: jax.Array, real: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
        logits, cache = apply(token[:, None], real[:, None].astype(jnp.int32), cache, method="extend")
        return logits[:, 0], cache

    return logits[:, 0], cache, step


def _start_t5(module: T5, bound: Bound, batch: dict[str, jax.Array], length: int) -> tuple[jax.Array, Any, Step]:
    """The same; the decoder begins with its start token."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    prompt, prefix = bound.prompt or Prompt(), bound.prefix or Prefix()
    apply = _applied(module, bound)
    hidden = apply(ids, mask, prompt=prompt.encoder, prefix=prefix.encoder, method="encode")
    given = {"prompt": prompt.decoder, "prefix": prefix.decoder, "cross_prefix": prefix.cross}
    cache = apply(hidden, mask, length + 1, **given, method="init_cache")

    def step(token: jax.Array, real: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
        logits, cache = apply(token[:, None], cache, real[:, None].astype(jnp.int32), method="decode_step")
        return logits[:, 0], cache

    first = jnp.full(len(ids), module.config.decoder_start_token_id, jnp.int32)
    logits, cache = step(first, jnp.ones(len(ids), bool), cache)
    return logits, cache, step


def _applied(module: nn.Module, bound: Bound) -> Callable[..., Any]:
    return lambda *args, **options: module.apply({"params": bound.params}, *args, **options)
