"""Prefix tuning (Li & Liang, 2021; P-tuning v2, Liu et al., 2022): trained keys and values in every layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxvalues.models.layers.initializers import standard_normal
from jaxvalues.models.t5.model import Prefix
from jaxvalues.tuning.method import AdditiveMethod, Bound, Params, Stack
from jaxvalues.tuning.networks import MLP


@dataclass(frozen=True)
class PrefixTuning(AdditiveMethod):
    """Prefix tuning: keys and values [2, P, N, H] before those of the tokens, in every layer of the stacks `sides`.

    Without `size` the keys and values train directly. With `size` (h), PEFT's `PrefixEncoder`, two linear layers with
    tanh between them, computes them from an embedding [P, E]. The trainable tree and its parameters per stack, besides
    the new parameters:

        {"prefix": {stack: [L, 2, P, N, H]}}                                                    2 L P N H
        {"prefix": {stack: {"embedding": [P, E], "hidden": {"kernel" [E, h], "bias"}, "out": {"kernel", "bias"}}}}
                                                                    P E + (E h + h) + (h + 1) · 2 L N H

    The initial keys and values, or the embedding, are normal with mean 0 and standard deviation `deviation`. PEFT uses
    torch's default, 1.
    """

    key: ClassVar[str] = "prefix"
    sides: tuple[str, ...]
    length: int
    deviation: float
    size: int | None = None

    def init_added(self, rng: jax.Array, params: Params) -> Params:
        keys = jax.random.split(rng, len(self.sides))
        return {
            side: self._start_stack(key, self.target.stacks[side]) for side, key in zip(self.sides, keys, strict=True)
        }

    def bind_added(self, params: Params, added: Params) -> Bound:
        prefixes = {side: self.keys_values(self.target.stacks[side], tree) for side, tree in added.items()}
        return Bound(params, prefix=Prefix(**prefixes) if self.target.is_encoder_decoder else prefixes["encoder"])

    def keys_values(self, stack: Stack, tree: Any) -> jax.Array:
        """The prefix [L, 2, P, N, H] of one stack."""
        if self.size is None:
            return tree
        columns = self._mlp(stack)(tree, tree["embedding"])  # [P, L · 2 · N · H]
        each = columns.reshape(self.length, stack.num_layers, 2, stack.num_heads, stack.head_size)
        return jnp.moveaxis(each, 0, 2)

    def _start_stack(self, rng: jax.Array, stack: Stack) -> Any:
        if self.size is None:
            shape = (stack.num_layers, 2, self.length, stack.num_heads, stack.head_size)
            return self.deviation * standard_normal(rng, shape)
        embedding, mlp = jax.random.split(rng)
        drawn = self.deviation * standard_normal(embedding, (self.length, self.target.word_size))
        return {"embedding": drawn, **self._mlp(stack).init(mlp)}

    def _mlp(self, stack: Stack) -> MLP:
        columns = stack.num_layers * 2 * stack.num_heads * stack.head_size
        return MLP(("hidden", "out"), (self.target.word_size, self.size, columns), jnp.tanh)
