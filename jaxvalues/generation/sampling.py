"""The choice of the next token from logits: the most likely one, or a draw at a temperature from the nucleus.

The key of a draw follows from the seed, the prompt's number, the sample's number and the step alone. So what is drawn
for a prompt depends neither on the other rows of its batch nor on how many there are, but for the rounding of logits.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Sampling(NamedTuple):
    """How B rows are decoded, as arrays, so that other settings need no other program.

    `temperature` 0 takes the most likely token. `top_p` is the smallest probability that the tokens which may be drawn
    have together (nucleus sampling; Holtzman et al., 2020); 1 keeps all. `keys` [B] are the random keys of the rows.
    """

    temperature: jax.Array
    top_p: jax.Array
    keys: jax.Array


def row_keys(seed: jax.Array | int, prompts: jax.Array, samples: jax.Array) -> jax.Array:
    """The keys [B] of rows that are the samples with these numbers [B] of the prompts with these numbers [B]."""
    key = jax.random.key(seed)
    return jax.vmap(lambda p, s: jax.random.fold_in(jax.random.fold_in(key, p), s))(prompts, samples)


def choose(logits: jax.Array, sampling: Sampling | None, step: jax.Array | int) -> jax.Array:
    """The tokens [B] that follow `logits` [B, V] float32 at this `step` of decoding; the most likely ones for None."""

    def most_likely() -> jax.Array:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def drawn() -> jax.Array:
        scaled = (logits - logits.max(axis=-1, keepdims=True)) / sampling.temperature
        scaled = lax.cond(sampling.top_p < 1, lambda: nucleus(scaled, sampling.top_p), lambda: scaled)
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(sampling.keys, step)
        return jax.vmap(jax.random.categorical)(keys, scaled).astype(jnp.int32)

    if sampling is None:
        return most_likely()
    return lax.cond(sampling.temperature > 0, drawn, most_likely)


def nucleus(logits: jax.Array, top_p: jax.Array | float) -> jax.Array:
    """Logits [B, V], −inf outside the smallest set of most likely tokens whose probability reaches `top_p`.

    The most likely token is always in it. Tokens as likely as the last one of the set are kept too.
    """
    ordered = jnp.sort(logits, axis=-1, descending=True)
    probabilities = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities  # of all tokens that are more likely
    least = jnp.where((before < top_p).at[:, 0].set(True), ordered, jnp.inf).min(axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)
