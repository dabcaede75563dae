"""Methods that train some of the model's own weights: `full`, `last_layers`, `head` and `bitfit`.

A method is two pure functions. `init` parts the parameters in two trees: `frozen`, which is never differentiated and
has no optimizer state, and `trainable`, the one definition of what is optimised, counted, saved and reloaded (heads
included). `bind` puts them together again. The parts share no leaf, so full tuning keeps no second copy of the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvalues.config import TuningConfig
from jaxvalues.errors import ConfigError

Params = dict[str, Any]


class Bound(NamedTuple):
    """What a model is applied to: its parameters."""

    params: Params


class Tuning(Protocol):
    """A tuning method."""

    def boundary(self, num_layers: int) -> int:
        """The lowest encoder layer that trains; nothing below it is differentiated (0: embeddings train too)."""
        ...

    def init(self, rng: jax.Array, params: Params) -> tuple[Params, Params]:
        """Part `params` into (frozen, trainable)."""
        ...

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        """The model's parameters, from both parts."""
        ...


@dataclass(frozen=True)
class Full:
    """Every parameter trains."""

    def boundary(self, num_layers: int) -> int:
        return 0

    def init(self, rng: jax.Array, params: Params) -> tuple[Params, Params]:
        return {}, params

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        return Bound(trainable)


@dataclass(frozen=True)
class LastLayers:
    """The heads and the top `layers` encoder layers train (the study's recipe: 8; arXiv 2403.09720)."""

    layers: int

    def boundary(self, num_layers: int) -> int:
        if self.layers > num_layers:
            raise ConfigError(f"tuning.layers is {self.layers}, but the model has only {num_layers} layers")
        return num_layers - self.layers

    def init(self, rng: jax.Array, params: Params) -> tuple[Params, Params]:
        lowest = self.boundary(_num_layers(params))
        return _part(params, lambda path: _is_new(path) or _at_least(path, lowest))

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        return _join(frozen, trainable)


@dataclass(frozen=True)
class Head:
    """The heads alone train, on an encoder that stays as it is."""

    def boundary(self, num_layers: int) -> int:
        return num_layers

    def init(self, rng: jax.Array, params: Params) -> tuple[Params, Params]:
        return _part(params, _is_new)

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        return _join(frozen, trainable)


@dataclass(frozen=True)
class BitFit:
    """Every bias and the heads train (Ben Zaken et al., 2022); matrices, embeddings and norm scales do not."""

    def boundary(self, num_layers: int) -> int:
        return 0

    def init(self, rng: jax.Array, params: Params) -> tuple[Params, Params]:
        return _part(params, lambda path: _is_new(path) or path.endswith("/bias"))

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        return _join(frozen, trainable)


def _part(params: Params, trains: Callable[[str], bool]) -> tuple[Params, Params]:
    """(the leaves whose path does not train, those whose path does)."""
    flat = flatten_dict(params, sep="/")
    frozen = {path: leaf for path, leaf in flat.items() if not trains(path)}
    trainable = {path: leaf for path, leaf in flat.items() if path not in frozen}
    return unflatten_dict(frozen, sep="/"), unflatten_dict(trainable, sep="/")


def _join(frozen: Params, trainable: Params) -> Bound:
    return Bound(unflatten_dict({**flatten_dict(frozen), **flatten_dict(trainable)}))


def _is_new(path: str) -> bool:
    """Whether a parameter was added to the encoder: heads and projections, which no checkpoint holds."""
    return not path.startswith("encoder/")


def _num_layers(params: Params) -> int:
    return 1 + max(layer_range(path)[1] for path in flatten_dict(params, sep="/") if layer_range(path))


def layer_range(path: str) -> tuple[int, int] | None:
    """First and last layer of the segment a parameter path belongs to (`…/layers/4-7/…`), None outside the layers."""
    match = re.search(r"(?:^|/)layers/(\d+)(?:-(\d+))?/", path)
    return (int(match[1]), int(match[2] or match[1])) if match else None


def _at_least(path: str, lowest: int) -> bool:
    layers = layer_range(path)
    return layers is not None and layers[0] >= lowest


def make_tuning(config: TuningConfig) -> Tuning:
    """The method that the config names."""
    match config.method:
        case "full":
            return Full()
        case "last_layers":
            return LastLayers(config.layers)
        case "head":
            return Head()
        case "bitfit":
            return BitFit()
