"""Methods that train some of the system's own weights, or nothing but what is new in it: `full`, `last_layers`,
`head`, `bitfit` and `none`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvalues.errors import ConfigError
from jaxvalues.models.layers.layout import layer_range
from jaxvalues.tuning.method import Bound, Params, Target, split_params


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
    """What is new and the top `layers` encoder layers train (the study's recipe: 8; arXiv 2403.09720)."""

    target: Target
    layers: int

    def __post_init__(self) -> None:
        _check_one_stack(self.target, "last_layers")

    def boundary(self, num_layers: int) -> int:
        if self.layers > num_layers:
            raise ConfigError(f"tuning.layers is {self.layers}, but the model has only {num_layers} layers")
        return num_layers - self.layers

    def init(self, rng: jax.Array, params: Params) -> tuple[Params, Params]:
        lowest = self.boundary(self.target.stacks["encoder"].num_layers)
        return _part(params, self.target, lambda path: _at_least(path, lowest))

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        return _join(frozen, trainable)


@dataclass(frozen=True)
class Head:
    """The heads alone train, on an encoder that stays as it is."""

    target: Target

    def __post_init__(self) -> None:
        _check_one_stack(self.target, "head")
        if not self.target.new_keys:
            raise ConfigError("tuning.method: head trains what is new in a system, and nothing is new in this one")

    def boundary(self, num_layers: int) -> int:
        return num_layers

    def init(self, rng: jax.Array, params: Params) -> tuple[Params, Params]:
        return split_params(params, self.target.new_keys)

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        return _join(frozen, trainable)


@dataclass(frozen=True)
class BitFit:
    """Every bias and what is new train (Ben Zaken et al., 2022); matrices, embeddings and norm scales do not."""

    target: Target

    def boundary(self, num_layers: int) -> int:
        return 0

    def init(self, rng: jax.Array, params: Params) -> tuple[Params, Params]:
        known, _ = split_params(params, self.target.new_keys)
        if not any(path.endswith("/bias") for path in flatten_dict(known, sep="/")):
            raise ConfigError(f"tuning.method: bitfit trains biases, and this {self.target.model_type} model has none")
        return _part(params, self.target, lambda path: path.endswith("/bias"))

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        return _join(frozen, trainable)


@dataclass(frozen=True)
class NoTuning:
    """Nothing trains but what is new, if there is something (a soft verbalizer, a head): without, it is zero-shot."""

    target: Target

    def boundary(self, num_layers: int) -> int:
        return 0

    def init(self, rng: jax.Array, params: Params) -> tuple[Params, Params]:
        return split_params(params, self.target.new_keys)

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        return _join(frozen, trainable)


def _part(params: Params, target: Target, trains: Callable[[str], bool]) -> tuple[Params, Params]:
    """(the leaves that stay, those that are new or whose path trains)."""
    flat = flatten_dict(params, sep="/")
    frozen = {
        path: leaf for path, leaf in flat.items() if path.split("/")[0] not in target.new_keys and not trains(path)
    }
    trainable = {path: leaf for path, leaf in flat.items() if path not in frozen}
    return unflatten_dict(frozen, sep="/"), unflatten_dict(trainable, sep="/")


def _join(frozen: Params, trainable: Params) -> Bound:
    return Bound(unflatten_dict({**flatten_dict(frozen), **flatten_dict(trainable)}))


def _at_least(path: str, lowest: int) -> bool:
    layers = layer_range(path)
    return layers is not None and layers[0] >= lowest


def _check_one_stack(target: Target, method: str) -> None:
    if target.is_encoder_decoder:
        raise ConfigError(
            f"tuning.method: {method} belongs to networks of one stack of layers; "
            f"a {target.model_type} model has an encoder and a decoder"
        )
