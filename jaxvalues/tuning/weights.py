"""Methods that train a subset of the system's own weights: `full`, `last_layers`, `head`, `bitfit`, `norms` and
`none`.

New parameters are those under `Target.new_keys`, which are not in the checkpoint. All methods train them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvalues.errors import ConfigError
from jaxvalues.models.layers.layout import layer_range
from jaxvalues.tuning.method import Bound, Params, Target, Tuning, split_params


@dataclass(frozen=True)
class Full(Tuning):
    """Every parameter trains."""

    def boundary(self, num_layers: int) -> int:
        return 0

    def split(self, params: Params) -> tuple[Params, Params]:
        return {}, params

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        return Bound(trainable)


@dataclass(frozen=True)
class NoTuning(Tuning):
    """The new parameters alone train, if there are any (`none`). Without them, the system is zero-shot."""

    target: Target

    def boundary(self, num_layers: int) -> int:
        return 0

    def split(self, params: Params) -> tuple[Params, Params]:
        return split_params(params, self.target.new_keys)

    def bind(self, frozen: Params, trainable: Params) -> Bound:
        return Bound(unflatten_dict({**flatten_dict(frozen), **flatten_dict(trainable)}))


@dataclass(frozen=True)
class LastLayers(NoTuning):
    """The top `layers` encoder layers train (8 in the study; arXiv 2403.09720), and everything above them.

    That is the new parameters, the head of a masked language model (dense layer, norm and bias) and GPT-2's final norm.
    An output matrix that is the word embeddings stays frozen, as they do.
    """

    layers: int

    def __post_init__(self) -> None:
        _check_one_stack(self.target, "last_layers")

    def boundary(self, num_layers: int) -> int:
        if self.layers > num_layers:
            raise ConfigError(f"tuning.layers is {self.layers}, but the model has only {num_layers} layers")
        return num_layers - self.layers

    def split(self, params: Params) -> tuple[Params, Params]:
        lowest = self.boundary(self.target.stacks["encoder"].num_layers)
        return _split_by_path(params, self.target, lambda path: _is_in_layer(path, lowest) or _is_above_layers(path))


@dataclass(frozen=True)
class Head(NoTuning):
    """The heads alone train, on a frozen encoder."""

    def __post_init__(self) -> None:
        _check_one_stack(self.target, "head")
        if not self.target.new_keys:
            raise ConfigError("tuning.method: head trains new parameters, but this system has none, such as a head")

    def boundary(self, num_layers: int) -> int:
        return num_layers


@dataclass(frozen=True)
class BitFit(NoTuning):
    """All biases and the new parameters train (Ben Zaken et al., 2022). Matrices, embeddings and norm scales do not."""

    def split(self, params: Params) -> tuple[Params, Params]:
        known, _ = split_params(params, self.target.new_keys)
        if not any(path.endswith("/bias") for path in flatten_dict(known, sep="/")):
            raise ConfigError(f"tuning.method: bitfit trains biases, and this {self.target.model_type} model has none")
        return _split_by_path(params, self.target, lambda path: path.endswith("/bias"))


@dataclass(frozen=True)
class Norms(NoTuning):
    """The scales and biases of all norms and the new parameters train (LN tuning; Qi et al., 2022, arXiv 2211.08682).

    It is the counterpart of `bitfit` for networks without biases, such as the Llama family.
    """

    def split(self, params: Params) -> tuple[Params, Params]:
        return _split_by_path(params, self.target, lambda path: _OF_NORM.search(path) is not None)


_OF_NORM = re.compile(r"(/|_)norm/(scale|bias)$")


def _split_by_path(params: Params, target: Target, trains: Callable[[str], bool]) -> tuple[Params, Params]:
    """(frozen, trainable): the new parameters and the leaves for whose path `trains` is true are trainable."""
    flat = flatten_dict(params, sep="/")
    frozen = {
        path: leaf for path, leaf in flat.items() if path.split("/")[0] not in target.new_keys and not trains(path)
    }
    trainable = {path: leaf for path, leaf in flat.items() if path not in frozen}
    return unflatten_dict(frozen, sep="/"), unflatten_dict(trainable, sep="/")


def _is_in_layer(path: str, lowest: int) -> bool:
    """Whether the leaf belongs to the layer `lowest` or a higher one."""
    layers = layer_range(path)
    return layers is not None and layers[0] >= lowest


def _is_above_layers(path: str) -> bool:
    """Whether the leaf belongs to what follows the last layer: a language model's head, or a final norm."""
    return path.startswith(("head/", "encoder/norm/"))


def _check_one_stack(target: Target, method: str) -> None:
    if target.is_encoder_decoder:
        raise ConfigError(
            f"tuning.method: {method} supports only networks with one stack of layers, but {target.model_type} has an "
            "encoder and a decoder"
        )
