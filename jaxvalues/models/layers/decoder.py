"""The call of a causal network, in which a token attends to those up to itself, at once or token by token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvalues.errors import UserError
from jaxvalues.models.layers.branches import Branches
from jaxvalues.models.layers.cache import Cache, from_bits, to_bits
from jaxvalues.models.layers.masks import causal_mask, count_positions
from jaxvalues.models.layers.stack import run_layers
from jaxvalues.models.layers.transformer import Inputs, PerLayer, Transformer


class Decoder(Transformer):
    """Tokens to hidden states, without the output matrix; the fields are those of `Transformer`.

    Its architectures fill in `layer_and_cache` in the place of `layer`.
    """

    def layer_and_cache(
        self, params: Any, x: jax.Array, inputs: Inputs, each: PerLayer, positions: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """As `layer`, and the keys and values [2, B, P + T, K, H] of x.

        Those in `each.prefix` and `each.cached` (see `PerLayer`) stand before them.
        """
        raise NotImplementedError

    def layer(
        self, params: Any, x: jax.Array, inputs: Inputs, each: PerLayer, positions: int | jax.Array | None = None
    ) -> jax.Array:
        return self.layer_and_cache(params, x, inputs, each, positions)[0]

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        token_type_ids: None = None,
        *,
        position_ids: jax.Array | None = None,
        prompt: jax.Array | None = None,
        prefix: jax.Array | None = None,
        positions: jax.Array | None = None,
        branches: Branches | None = None,
        deterministic: bool = True,
        layers: Sequence[int] = (-1,),
        first_only: bool = False,
        hidden: jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """Hidden states [B, T, D], one for each of `layers`: 0 the embeddings, k after layer k, negative from the end.

        The last is normalised, as in Hugging Face. The highest is [B, K, D] if `positions` [B, K] are given, which
        saves most of the top layer's work.

        `attention_mask` is [B, T], nonzero on real tokens, padded left or right; each attends to those up to itself.
        Or it is [B, T, T], nonzero where token t may attend to token s, and then `position_ids` are needed.
        `position_ids` [B, T] default to the count of real tokens, so that padding shifts nothing. (Hugging Face counts
        from 0 in every row, padding too, unless it generates.) If rows end in `branches` that do not attend to each
        other, naming them saves the scores between them; `positions` must then name one in each branch.

        `prompt` [P, D] or [B, P, D] are vectors before all tokens and padding, in the place of word vectors. `prefix`
        [L, 2, P, K, H] are keys and values before those of each layer. Every token attends to both. They take the first
        positions, the prefix before the prompt; `position_ids` count what follows. Hidden states are the tokens' alone.
        PEFT does the same, except that its prompts come with positions that count padding.

        Unless `deterministic`, a "dropout" rng is needed. `hidden` is as in `Encoder`. Raises `UserError` for an input
        longer than the network reads; with `position_ids` given, positions beyond the last give NaN.
        """
        c = self.config
        if first_only:
            raise UserError(
                f"the first token of a {c.model_type} model sees only itself: pool the last token, or the mean"
            )
        if token_type_ids is not None:
            raise UserError(f"{c.model_type} models have no token types")
        past = jnp.ones((len(attention_mask), c.prefix_length(prefix)), bool)
        size = c.prompt_length(prompt, len(attention_mask))
        if hidden is None and position_ids is None:
            c.check_length(input_ids.shape[1], size, past.shape[1])
        if branches is not None and positions is not None and positions.shape[1] != branches.count:
            raise UserError(
                f"{positions.shape[1]} positions are asked for, but the rows end in {branches.count} branches"
            )
        position_ids = absolute_positions(attention_mask, position_ids, size, past)
        inputs = Inputs(
            input_ids,
            attention_mask,
            mask=causal_mask(attention_mask, size, past),
            prompt_length=size,
            prefix_length=past.shape[1],
            position_ids=position_ids,
            key_positions=_key_positions(past, position_ids),
            prompt=prompt,
            prefix=prefix,
            branches=branches,
            hidden=hidden,
        )
        positions = None if positions is None else positions + size
        return self.hidden_states(inputs, layers=layers, deterministic=deterministic, positions=positions)

    def extend(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        cache: Cache,
        *,
        before: Cache | None = None,
        position_ids: jax.Array | None = None,
        prompt: jax.Array | None = None,
        positions: jax.Array | None = None,
        filled: int | None = None,
    ) -> tuple[jax.Array, Cache]:
        """The last hidden state of tokens that follow those in a `cache`, and the cache with these tokens in it.

        The hidden state is [B, T, D], or [B, K, D] at `positions` [B, K]. The first call reads a text into an empty
        cache (`layers.cache`), with its `prompt`; each later one is given the next tokens [B, T], padded or not
        (`attention_mask` [B, T]). `position_ids` default to the count of real tokens from the cache's first on. For a
        window, tokens in the cache stand where that count puts them. Tokens for which the cache has no slots give NaN.

        `filled` is the number of slots that hold something, if that is known: the others are then not read. The tokens
        of a cache `before`, which is only read, stand before those in `cache`. No gradient passes through a cache.
        """
        read = cache._replace(kv=cache.kv[..., :filled, :], real=cache.real[:, :filled])
        earlier = [read] if before is None else [before, read]
        past = jnp.concatenate([each.real for each in earlier], axis=1)
        size = self.config.prompt_length(prompt, len(input_ids))
        position_ids = absolute_positions(attention_mask, position_ids, size, past)
        inputs = Inputs(
            input_ids,
            attention_mask,
            mask=causal_mask(attention_mask, size, past),
            prompt_length=size,
            position_ids=position_ids,
            key_positions=_key_positions(past, position_ids),
            prompt=prompt,
        )
        x, shared = self.embed(inputs, None)
        inputs = inputs._replace(shared=shared)
        real = jnp.concatenate([jnp.ones((len(past), size), bool), attention_mask != 0], axis=1)
        positions = None if positions is None else positions + size

        # The layers read the cache and write their new keys and values beside it. If each wrote its own part of it
        # between two that read theirs, XLA would copy the whole cache for every layer.
        def apply(
            params: Any, state: Any, each: Any, positions: jax.Array | None = None
        ) -> tuple[jax.Array, jax.Array]:
            (x, added), (i, cached) = state, each
            x, new = self.layer_and_cache(params, x, inputs, PerLayer(None, None, i, cached), positions)
            new = to_bits(new.swapaxes(2, 3)[None].astype(cache.kv.dtype))
            return x, lax.dynamic_update_slice(added, new, (i, 0, 0, 0, 0, 0))

        layers, _, rows, heads, _, width = cache.kv.shape
        added = to_bits(jnp.zeros((layers, 2, rows, heads, real.shape[1], width), cache.kv.dtype))
        ((x, added),) = run_layers(
            apply,
            self.layers,
            (x, added),
            (np.arange(layers, dtype=np.int32), tuple(each.kv for each in earlier if each.real.shape[1])),
            segments=self.segments,
            wanted=(layers,),
            apply_top=None if positions is None else partial(apply, positions=positions),
        )
        added = from_bits(added, cache.kv.dtype)
        kv = lax.dynamic_update_slice_in_dim(cache.kv, added, cache.length, axis=4)
        x = self.finish(x if positions is not None else x[:, size:])
        fits = cache.length + real.shape[1] <= cache.real.shape[1]
        real = lax.dynamic_update_slice_in_dim(cache.real, real, cache.length, axis=1)
        return jnp.where(fits, x, jnp.nan), Cache(kv, real, cache.length + size + input_ids.shape[1])


def absolute_positions(
    attention_mask: jax.Array, position_ids: jax.Array | None, prompt: int, past: jax.Array
) -> jax.Array:
    """Positions [B, P + T] of a prompt of P and T tokens behind the real ones of `past` [B, S].

    `position_ids` [B, T] count from the first token, as real tokens do where they are None.
    """
    if position_ids is None:
        if attention_mask.ndim == 3:
            raise UserError("an attention_mask [B, T, T] does not say where tokens stand: give position_ids")
        position_ids = count_positions(attention_mask)
    first = past.sum(axis=1, dtype=jnp.int32)[:, None]  # [B, 1]
    if prompt:
        of_prompt = jnp.broadcast_to(jnp.arange(prompt), (len(attention_mask), prompt))
        position_ids = jnp.concatenate([of_prompt, position_ids + prompt], axis=1)
    return first + position_ids


def _key_positions(past: jax.Array, position_ids: jax.Array) -> jax.Array:
    """Positions [B, S + P + T] of the keys of an earlier call, `past` [B, S], and of `position_ids` [B, P + T]."""
    return jnp.concatenate([count_positions(past).astype(position_ids.dtype), position_ids], axis=1)
