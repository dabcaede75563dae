"""Tables of vectors, and what stands before the words of an input: the vectors of a prompt."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvalues.errors import UserError
from jaxvalues.models.layers.initializers import standard_normal


class Embedding(nn.Module):
    """A table of vectors [V, E], under the key "embedding"."""

    shape: tuple[int, int]
    init_fn: Any

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("embedding", self.init_fn, self.shape)


def normal_with_zero_row(stddev: float, row: int | None) -> Any:
    """An initializer of a table: normal, and zeros in one `row` (None: in no row)."""

    def init(rng: jax.Array, shape: tuple[int, int]) -> jax.Array:
        table = stddev * standard_normal(rng, shape)
        return table if row is None else table.at[row].set(0.0)

    return init


def after_prompt(prompt: jax.Array | None, words: jax.Array) -> jax.Array:
    """Word vectors [B, T, E] behind those of a prompt [P, E] or [B, P, E]: [B, P + T, E]."""
    if prompt is None:
        return words
    return jnp.concatenate([jnp.broadcast_to(prompt, (len(words), *prompt.shape[-2:])), words], axis=1)


def check_prompt_is_trainable(
    model_type: str, prompt: jax.Array | None, stop_gradient_below: int, hidden: jax.Array | None
) -> None:
    """Raise `UserError` for a prompt to which no gradient would flow, or that no layer would read."""
    if prompt is not None and (stop_gradient_below > 0 or hidden is not None):
        raise UserError(f"a prompt enters a {model_type} model below its layers, but nothing there is differentiated")
