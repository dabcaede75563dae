"""The interface of tuning methods.

A method is two pure functions. `init` splits the parameters in two trees. `frozen` is never differentiated and has no
optimizer state. `trainable` is the one definition of what is optimised, counted, saved and reloaded (heads included).
`bind` joins both to the inputs of the network. The trees share no leaf, so full tuning keeps no second copy of the
model. Networks do not depend on methods: they take parameters, a prompt and a prefix.

`init` has two parts: `split` moves arrays and computes nothing, `draw` computes new ones and can be jitted alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import jax

from jaxvalues.models.layers.dense import BESIDE, merge_beside

Params = dict[str, Any]


class Bound(NamedTuple):
    """The arguments of `module.apply` besides the batch: the parameters of the whole system, a prompt and a prefix.

    `prompt` is [P, E], or a `Prompt` for an encoder-decoder. `prefix` is [L, 2, P, K, H], or a `Prefix` for an
    encoder-decoder. Both may be None.
    """

    params: Params
    prompt: Any = None
    prefix: Any = None


class Stack(NamedTuple):
    """The sizes of one stack of attention layers: L, K heads of keys and values, and H."""

    num_layers: int
    num_heads: int
    head_size: int


class Target(NamedTuple):
    """The facts about a system that a tuning method needs.

    `new_keys` are the top-level keys of new parameters, which are not in the checkpoint: a classifier's head, a
    projection, a soft verbalizer. They always train. `word_embedding` is the path of the word embeddings [V, E],
    `word_size` is E, and `word_scale` is what the network multiplies them with before the layers. `stacks` are the
    stacks of attention layers: "encoder", or "encoder", "decoder" and "cross" (cross-attention). `encode` returns the
    token ids of a text, without special tokens.
    """

    model_type: str
    new_keys: frozenset[str]
    word_embedding: str
    word_size: int
    stacks: dict[str, Stack]
    encode: Callable[[str], list[int]]
    word_scale: float = 1.0

    @property
    def is_encoder_decoder(self) -> bool:
        return "decoder" in self.stacks


class Tuning(Protocol):
    """The interface of all tuning methods: which parameters train, and how the network uses them."""

    def boundary(self, num_layers: int) -> int:
        """The index of the lowest encoder layer that trains. No gradient is computed below it (0: all layers)."""
        ...

    def split(self, params: Params) -> tuple[Params, Params]:
        """`params` as (frozen, those that train)."""
        ...

    def draw(self, rng: jax.Array, params: Params) -> Params:
        """The method's own new parameters, under keys that `params` does not have; most methods have none."""
        return {}

    def init(self, rng: jax.Array, params: Params) -> tuple[Params, Params]:
        """Splits `params` into (frozen, trainable), and adds the method's own parameters to the latter."""
        frozen, trainable = self.split(params)
        drawn = self.draw(rng, params)
        return frozen, {**trainable, **drawn} if drawn else trainable

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        """The arguments of the network, from both trees."""
        ...

    def with_dropout(self, bound: Bound, key: jax.Array) -> Bound:
        """The arguments for training, with dropout in what the method adds; most methods have none."""
        return bound

    def merge(self, frozen: Params, trainable: Params) -> Params:
        """The parameters of a plain network that computes the same, but for a prompt and a prefix. For an export."""
        return merge_all(self.bind(frozen, trainable).params)


def merge_all(params: Params) -> Params:
    """A tree with whatever acts beside the kernels of dense layers merged into them."""
    if not isinstance(params, dict):
        return params
    if BESIDE & params.keys():
        return merge_beside(params)
    return {key: merge_all(tree) for key, tree in params.items()}


def split_params(params: Params, keys: Collection[str]) -> tuple[Params, Params]:
    """Splits a tree by its top-level keys: (the rest, those in `keys`)."""
    inside = {key: tree for key, tree in params.items() if key in keys}
    return {key: tree for key, tree in params.items() if key not in inside}, inside


@dataclass(frozen=True)
class AdditiveMethod(Tuning, ABC):
    """The base of methods that freeze the network and train added parameters, which are under the top-level `key`.

    Subclasses define the added parameters (`init_added`) and how the network uses them (`bind_added`).
    """

    key: ClassVar[str]
    target: Target

    @abstractmethod
    def init_added(self, rng: jax.Array, params: Params) -> Params:
        """The initial added parameters of a network with `params`."""

    @abstractmethod
    def bind_added(self, params: Params, added: Params) -> Bound:
        """The arguments of the network, from its own `params` and the `added` ones."""

    def boundary(self, num_layers: int) -> int:
        return 0

    def split(self, params: Params) -> tuple[Params, Params]:
        return split_params(params, self.target.new_keys)

    def draw(self, rng: jax.Array, params: Params) -> Params:
        return {self.key: self.init_added(rng, self.split(params)[0])}

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        new, added = split_params(trainable, (self.key,))
        return self.bind_added({**frozen, **new}, added[self.key])
