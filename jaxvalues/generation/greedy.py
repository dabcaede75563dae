"""Greedy decoding inside another compiled function."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvalues.generation.decode import Rules, decode, start
from jaxvalues.tuning import Bound


def greedy(
    module: nn.Module, bound: Bound, batch: dict[str, jax.Array], *, length: int, ends: Sequence[int], pad: int
) -> jax.Array:
    """The M = `length` most likely tokens after each row of a batch: ids [B, M], with `pad` after a token of `ends`.

    It is a pure function with fixed shapes. It stops as soon as all rows have generated one of `ends`.
    """
    rules = Rules(jnp.asarray(ends or (-1,), jnp.int32))
    state = start(module, bound, batch, rules, slots=length, pad=pad)
    return decode(module, bound, state, rules, length).ids
