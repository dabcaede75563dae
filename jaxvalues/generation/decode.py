"""The decoding loop: a prompt is read once, then tokens are added one by one, with a cache of keys and values.

`start` reads the prompts of a batch and chooses the first token; `decode` is one loop that adds the others and stops as
soon as every row has ended. Both are pure functions with fixed shapes, so each is compiled once for a batch
shape. `decode` can be called again on its own result, with the same program: that is how stop strings are looked for
between two calls (`generation.stopping`).

Rows of different lengths are padded on the left (`right_aligned`), so that the next token of every row goes into the
same slot of the cache. Rows padded on the right give the same tokens, as padding is masked and has no position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxvalues.generation.sampling import Sampling, choose
from jaxvalues.models import T5, Cache, Prefix, Prompt, append, empty_cache, repeat_cache
from jaxvalues.models.layers.masks import last_token
from jaxvalues.models.t5.stack import T5Cache
from jaxvalues.tuning import Bound

RECENT = 32
"""The number of tokens that are decoded before they join the large cache."""


class Rules(NamedTuple):
    """How the next tokens are chosen, and what ends a row: `ends` [E] are tokens; -1 is none."""

    ends: jax.Array
    sampling: Sampling | None = None  # None: the most likely token


class State(NamedTuple):
    """Where the decoding of B rows stands.

    `ids` [B, M] are the generated tokens, the one that ended a row included, and padding after it; `lengths` [B] says
    how many they are. `count` is the number of tokens of the rows that have not ended; all rows are in step. `done` [B]
    is True for rows that have ended. `cache` holds the tokens before the last one of each row, and none that ends a
    row. `is_finite` is False once a row that had not ended had logits that are not numbers.
    """

    ids: jax.Array
    lengths: jax.Array
    count: jax.Array
    done: jax.Array
    cache: Any
    is_finite: jax.Array


def start(
    module: nn.Module,
    bound: Bound,
    batch: dict[str, jax.Array],
    rules: Rules,
    active: jax.Array | None = None,
    *,
    slots: int,
    pad: int,
    samples: int = 1,
) -> State:
    """Reads the prompts `input_ids` [B, T] with their `attention_mask` [B, T], and chooses the first token of each.

    There is room for M = `slots` tokens. With `samples` K > 1
    each prompt is read once and continued K times: rows are then B · K, the samples of a prompt side by side. Rows that
    are not `active` [B · K] have ended from the beginning: they fill a batch.
    """
    read = _read_t5 if isinstance(module, T5) else _read_causal
    logits, cache = read(module, bound, batch, slots)
    if samples > 1:
        logits, cache = jnp.repeat(logits, samples, axis=0), _repeat(cache, samples)
    rows = len(logits)
    done = jnp.zeros(rows, bool) if active is None else ~active
    state = State(
        jnp.full((rows, slots), pad, jnp.int32),
        jnp.zeros(rows, jnp.int32),
        jnp.int32(0),
        done,
        cache,
        jnp.bool_(True),
    )
    return _add(state, logits, rules)


def decode(
    module: nn.Module,
    bound: Bound,
    state: State,
    rules: Rules,
    until: jax.Array | int,
    *,
    stopped: jax.Array | None = None,
) -> State:
    """Adds tokens until every row has ended or has `until` ≤ M of them. Rows `stopped` [B] end where they are.

    `until` may be traced. The other arguments are those of `start`.
    """
    if stopped is not None:
        state = state._replace(done=state.done | stopped)

    def is_unfinished(state: State) -> jax.Array:
        return (state.count < until) & ~state.done.all()

    def add_token_t5(state: State) -> State:
        logits, cache = _step_t5(module, bound, _last(state), ~state.done, state.cache)
        return _add(state._replace(cache=cache), logits, rules)

    # A step reads all keys and values and writes those of one token. In a cache of its own, which is small, the large
    # one stays as it is for many steps: what XLA makes of it to read it, it makes once, and it copies nothing.
    def add_some_tokens(state: State) -> State:
        cache = state.cache

        def goes_on(carried: tuple[State, Cache]) -> jax.Array:
            return is_unfinished(carried[0]) & (carried[1].length < carried[1].real.shape[1])

        def add_token(carried: tuple[State, Cache]) -> tuple[State, Cache]:
            state, recent = carried
            logits, recent = _step_causal(module, bound, _last(state), ~state.done, recent, before=cache)
            return _add(state, logits, rules), recent

        recent = empty_cache(module.encoder, len(state.ids), min(RECENT, state.ids.shape[1]))
        state, recent = lax.while_loop(goes_on, add_token, (state._replace(cache=None), recent))
        return state._replace(cache=append(cache, recent))

    return lax.while_loop(is_unfinished, add_token_t5 if isinstance(module, T5) else add_some_tokens, state)


def cache_all(module: nn.Module, bound: Bound, state: State) -> State:
    """The state with the last token of every row that has not ended in its cache, so that a text can be continued."""
    step = _step_t5 if isinstance(module, T5) else _step_causal
    return state._replace(cache=step(module, bound, _last(state), ~state.done, state.cache)[1])


def right_aligned(rows: Sequence[Sequence[int]], shape: tuple[int, int], pad: int) -> dict[str, np.ndarray]:
    """Rows of tokens as `input_ids` and `attention_mask` [B, T] = `shape`, with padding on the left.

    Rows beyond the given ones have one token, so that no row of the batch is empty.
    """
    batch = {"input_ids": np.full(shape, pad, np.int32), "attention_mask": np.zeros(shape, np.int32)}
    batch["attention_mask"][len(rows) :, -1] = 1
    for number, row in enumerate(rows):
        batch["input_ids"][number, shape[1] - len(row) :] = row
        batch["attention_mask"][number, shape[1] - len(row) :] = 1
    return batch


def left_aligned(rows: Sequence[Sequence[int]], shape: tuple[int, int], pad: int) -> dict[str, np.ndarray]:
    """As `right_aligned`, with padding on the right, as an encoder reads it."""
    batch = {"input_ids": np.full(shape, pad, np.int32), "attention_mask": np.zeros(shape, np.int32)}
    batch["attention_mask"][len(rows) :, 0] = 1
    for number, row in enumerate(rows):
        batch["input_ids"][number, : len(row)] = row
        batch["attention_mask"][number, : len(row)] = 1
    return batch


def _last(state: State) -> jax.Array:
    """The last token [B] of each row."""
    return lax.dynamic_index_in_dim(state.ids, state.count - 1, axis=1, keepdims=False)


def _add(state: State, logits: jax.Array, rules: Rules) -> State:
    """The state with the next token, chosen from `logits` [B, V]; rows that have ended keep what they have."""
    token = choose(logits, rules.sampling, state.count)
    kept = lax.dynamic_index_in_dim(state.ids, state.count, axis=1, keepdims=False)  # padding
    token = jnp.where(state.done, kept, token)
    best = jnp.where(state.done, 0.0, logits.max(axis=-1))  # NaN where any logit is
    return state._replace(
        ids=lax.dynamic_update_index_in_dim(state.ids, token, state.count, axis=1),
        lengths=state.lengths + ~state.done,
        count=state.count + 1,
        done=state.done | (token[:, None] == rules.ends).any(axis=1),
        is_finite=state.is_finite & jnp.isfinite(best).all(),
    )


def _read_causal(module: nn.Module, bound: Bound, batch: dict[str, jax.Array], slots: int) -> tuple[jax.Array, Cache]:
    """The logits [B, V] of the first new token, and a cache of the rows with free slots."""
    ids, mask, prompt = batch["input_ids"], batch["attention_mask"], bound.prompt
    prefix = 0 if bound.prefix is None else bound.prefix.shape[2]
    before = prefix + (0 if prompt is None else prompt.shape[-2])
    cache = empty_cache(module.encoder, len(ids), before + ids.shape[1] + slots, prefix=bound.prefix)
    options = {"prompt": prompt, "positions": last_token(mask)[:, None], "filled": prefix}
    logits, cache = _apply(module, bound, "extend")(ids, mask, cache, **options)
    return logits[:, 0], cache


def _step_causal(
    module: nn.Module, bound: Bound, token: jax.Array, real: jax.Array, cache: Cache, *, before: Cache | None = None
) -> tuple[jax.Array, Cache]:
    """The logits [B, V] after the next `token` [B] of each row, and the cache with those that are `real` [B].

    The tokens in a cache `before` stand before those.
    """
    tokens, mask = token[:, None], real[:, None].astype(jnp.int32)
    logits, cache = _apply(module, bound, "extend")(tokens, mask, cache, before=before)
    return logits[:, 0], cache


def _read_t5(module: T5, bound: Bound, batch: dict[str, jax.Array], slots: int) -> tuple[jax.Array, T5Cache]:
    """As `_read_causal`: the encoder reads the prompts, and the decoder its start token."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    prompt, prefix = bound.prompt or Prompt(), bound.prefix or Prefix()
    hidden = _apply(module, bound, "encode")(ids, mask, prompt=prompt.encoder, prefix=prefix.encoder)
    given = {"prompt": prompt.decoder, "prefix": prefix.decoder, "cross_prefix": prefix.cross}
    cache = _apply(module, bound, "init_cache")(hidden, mask, slots + 1, **given)
    first = jnp.full(len(ids), module.config.decoder_start_token_id, jnp.int32)
    return _step_t5(module, bound, first, jnp.ones(len(ids), bool), cache)


def _step_t5(module: T5, bound: Bound, token: jax.Array, real: jax.Array, cache: T5Cache) -> tuple[jax.Array, T5Cache]:
    logits, cache = _apply(module, bound, "decode_step")(token[:, None], cache, real[:, None].astype(jnp.int32))
    return logits[:, 0], cache


def _repeat(cache: Cache | T5Cache, times: int) -> Cache | T5Cache:
    """A cache with each row `times` times."""
    if isinstance(cache, Cache):
        return repeat_cache(cache, times)
    memory, cross = (jax.tree.map(lambda x: jnp.repeat(x, times, axis=1), each) for each in (cache.memory, cache.cross))
    real, cross_real = (jnp.repeat(x, times, axis=0) for x in (cache.real, cache.cross_real))
    return cache._replace(memory=memory, real=real, cross=cross, cross_real=cross_real)


def _apply(module: nn.Module, bound: Bound, method: str) -> Callable[..., Any]:
    return lambda *args, **options: module.apply({"params": bound.params}, *args, method=method, **options)
