"""What a tuning method is, what it is told of a system, and what it gives to the network.

A method is two pure functions. `init` parts the parameters in two trees: `frozen`, which is never differentiated and
has no optimizer state, and `trainable`, the one definition of what is optimised, counted, saved and reloaded (heads
included). `bind` makes of both what the network is applied to. The parts share no leaf, so full tuning keeps no second
copy of the model. Networks know no method by name: they take parameters, a prompt and a prefix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import jax

Params = dict[str, Any]


class Bound(NamedTuple):
    """What a network is applied to: the parameters of the whole system, and what enters beside the tokens.

    `prompt` is [P, E], or the `Prompt` of an encoder-decoder; `prefix` is [L, 2, P, N, H], or its `Prefix`.
    """

    params: Params
    prompt: Any = None
    prefix: Any = None


class Stack(NamedTuple):
    """One stack of attention layers: L, N and H."""

    num_layers: int
    num_heads: int
    head_size: int


class Target(NamedTuple):
    """What a method must know of the system that it tunes.

    `new` are the top-level keys that no checkpoint holds (heads of classifiers, a projection, a verbalizer), which
    always train; `words` is the path of the word embeddings [V, E], of which `word_size` is E; `stacks` are the stacks
    of attention layers: "encoder" alone, or "encoder", "decoder" and "cross" (cross-attention); `encode` gives the
    token ids of a text, without special tokens.
    """

    model_type: str
    new_keys: frozenset[str]
    word_embedding: str
    word_size: int
    stacks: dict[str, Stack]
    encode: Callable[[str], list[int]]

    @property
    def is_encoder_decoder(self) -> bool:
        return "decoder" in self.stacks


class Tuning(Protocol):
    """A tuning method."""

    def boundary(self, num_layers: int) -> int:
        """The lowest encoder layer that trains; nothing below it is differentiated (0: the network is not cut)."""
        ...

    def init(self, rng: jax.Array, params: Params) -> tuple[Params, Params]:
        """Part `params` into (frozen, trainable)."""
        ...

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        """What the network is applied to, from both parts."""
        ...


def split_params(params: Params, keys: Collection[str]) -> tuple[Params, Params]:
    """(what lies under other top-level keys, what lies under `keys`)."""
    inside = {key: tree for key, tree in params.items() if key in keys}
    return {key: tree for key, tree in params.items() if key not in inside}, inside


@dataclass(frozen=True)
class AdditiveMethod(ABC):
    """A method that leaves the network's own weights as they are and trains what it adds, under a `key` of its own.

    It says what it adds (`init_added`) and how that enters (`bind_added`).
    """

    key: ClassVar[str]
    target: Target

    @abstractmethod
    def init_added(self, rng: jax.Array, params: Params) -> Params:
        """What is added to `params`, before the first step."""

    @abstractmethod
    def bind_added(self, params: Params, added: Params) -> Bound:
        """What the network is applied to, from its own `params` and what was `added`."""

    def boundary(self, num_layers: int) -> int:
        return 0

    def init(self, rng: jax.Array, params: Params) -> tuple[Params, Params]:
        frozen, new = split_params(params, self.target.new_keys)
        return frozen, {**new, self.key: self.init_added(rng, frozen)}

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        new, added = split_params(trainable, (self.key,))
        return self.bind_added({**frozen, **new}, added[self.key])
