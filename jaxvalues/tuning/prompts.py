"""Prompt tuning and P-tuning: trained vectors before the word embeddings of the input, with a frozen network.

`prompt` trains the vectors directly (Lester et al., 2021), or with a residual network (Razdaibiedina et al., 2023).
`p_tuning` trains a small network that computes them (Liu et al., 2021). An encoder-decoder has a prompt, and a network
where there is one, for each of its `sides`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from flax.traverse_util import flatten_dict

from jaxvalues.models.layers.norm import LayerNorm
from jaxvalues.models.t5.model import Prompt
from jaxvalues.tuning.initializers import Initializer
from jaxvalues.tuning.method import AdditiveMethod, Bound, Params, Target
from jaxvalues.tuning.networks import MLP, BiLSTM


@dataclass(frozen=True)
class PromptTuning(AdditiveMethod):
    """Prompt tuning. The trainable tree is {"prompt": {side: [P, E]}} besides the new parameters."""

    key: ClassVar[str] = "prompt"
    sides: tuple[str, ...]
    initializer: Initializer

    def init_added(self, rng: jax.Array, params: Params) -> Params:
        words = _words(params, self.target)
        keys = jax.random.split(rng, len(self.sides))
        return {side: self.initializer(key, words) for side, key in zip(self.sides, keys, strict=True)}

    def bind_added(self, params: Params, added: Params) -> Bound:
        return Bound(params, prompt=_as_network_input(added, self.target))


@dataclass(frozen=True)
class ResidualPromptTuning(PromptTuning):
    """Residual prompt tuning (Razdaibiedina et al., 2023): the prompt is norm(mlp(embedding)) + embedding.

    The network is shared by all positions: a linear layer down to `size` (h), ReLU, one up again, and layer norm. Only
    training needs it, as the vectors are the same for every input: an export holds plain vectors, and another run of
    `prompt` starts from them. The trainable tree is {"prompt": {side: {"embedding": [P, E], "mlp": {"down", "up"},
    "norm": {"scale", "bias"}}}} besides the new parameters. Parameters of each side:

        P E + (E h + h) + (h E + E) + 2 E

    `initializer` gives the initial embedding. The norm's output has variance 1 from the start, as in the authors' code,
    so the first prompt is not that of the initializer.
    """

    size: int

    def init_added(self, rng: jax.Array, params: Params) -> Params:
        embedding, mlp = jax.random.split(rng)
        vectors = super().init_added(embedding, params)
        keys = jax.random.split(mlp, len(self.sides))
        return {side: self._start_side(key, vectors[side]) for side, key in zip(self.sides, keys, strict=True)}

    def bind_added(self, params: Params, added: Params) -> Bound:
        return super().bind_added(params, {side: self.vectors(tree) for side, tree in added.items()})

    def vectors(self, tree: Params) -> jax.Array:
        """The prompt [P, E] of one side."""
        added = self._norm.apply({"params": tree["norm"]}, self._mlp(tree["mlp"], tree["embedding"]))
        return added + tree["embedding"]

    def _start_side(self, rng: jax.Array, embedding: jax.Array) -> Params:
        norm = self._norm.init(rng, embedding)["params"]
        return {"embedding": embedding, "mlp": self._mlp.init(rng), "norm": norm}

    @property
    def _mlp(self) -> MLP:
        width = self.target.word_size
        return MLP(("down", "up"), (width, self.size, width), jax.nn.relu)

    @property
    def _norm(self) -> LayerNorm:
        return LayerNorm(1e-5)  # torch's default


@dataclass(frozen=True)
class PTuning(AdditiveMethod):
    """P-tuning with PEFT's `PromptEncoder`.

    The trainable tree is {"p_tuning": {side: {"embedding": [P, E], "lstm": ..., "mlp": ...}}} besides the new
    parameters. The prompt is mlp(embedding), with three linear layers and ReLU between them. With `recurrent` it is
    mlp(lstm(embedding)), with two bidirectional layers and two linear ones. `initializer` gives the initial embedding.
    Parameters of each side, where h is `size`:

        mlp     P E + (E h + h) + (h h + h) + (h E + E)
        lstm    P E + 2 · 4 h (E + h + 1) + 2 · 4 h (3 h + 1) + (4 h h + 2 h) + (2 h E + E)
    """

    key: ClassVar[str] = "p_tuning"
    sides: tuple[str, ...]
    initializer: Initializer
    size: int
    recurrent: bool = False

    def init_added(self, rng: jax.Array, params: Params) -> Params:
        words = _words(params, self.target)
        keys = jax.random.split(rng, len(self.sides))
        return {side: self._start_side(key, words) for side, key in zip(self.sides, keys, strict=True)}

    def bind_added(self, params: Params, added: Params) -> Bound:
        prompts = {side: self.vectors(tree) for side, tree in added.items()}
        return Bound(params, prompt=_as_network_input(prompts, self.target))

    def vectors(self, tree: Params) -> jax.Array:
        """The prompt [P, E] of one side."""
        x = self._lstm(tree["lstm"], tree["embedding"]) if self.recurrent else tree["embedding"]
        return self._mlp(tree["mlp"], x)

    def _start_side(self, rng: jax.Array, words: jax.Array) -> Params:
        embedding, mlp, lstm = jax.random.split(rng, 3)
        tree = {"embedding": self.initializer(embedding, words), "mlp": self._mlp.init(mlp)}
        return {**tree, "lstm": self._lstm.init(lstm)} if self.recurrent else tree

    @property
    def _mlp(self) -> MLP:
        width, size = self.target.word_size, self.size
        if self.recurrent:
            return MLP(("hidden", "out"), (2 * size, 2 * size, width), jax.nn.relu)
        return MLP(("first", "second", "out"), (width, size, size, width), jax.nn.relu)

    @property
    def _lstm(self) -> BiLSTM:
        return BiLSTM(self.target.word_size, self.size)


def _words(params: Params, target: Target) -> Any:
    """The word vectors [V, E] as they enter the layers of the network."""
    return flatten_dict(params, sep="/")[target.word_embedding] * target.word_scale


def _as_network_input(prompts: dict[str, jax.Array], target: Target) -> Any:
    return Prompt(**prompts) if target.is_encoder_decoder else prompts["encoder"]
