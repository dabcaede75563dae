"""The dense layers that an adapter in weight space changes, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from jaxvalues.errors import ConfigError
from jaxvalues.models.layers.layout import layer_range

BERT_LIKE = ("bert", "roberta", "xlm-roberta")


def default_targets(model_type: str, defaults: Mapping[str, tuple[str, ...]], method: str) -> tuple[str, ...]:
    """The names that `defaults` has for an architecture. Raises ConfigError where it has none."""
    if model_type not in defaults:
        raise ConfigError(
            f"tuning.targets must name the dense layers that {method} changes, as {model_type} models have no default"
        )
    return defaults[model_type]


def target_layers(params: Any, names: tuple[str, ...]) -> dict[str, jax.Array]:
    """{path: kernel} of the dense layers with one of `names`, sorted by path.

    A kernel is [in, out], or [n, in, out] in a segment of n stacked layers. Raises ConfigError, with the names there
    are, for a name that no dense layer has.
    """
    flat = flatten_dict(params, sep="/")
    kernels = {path.removesuffix("/kernel"): leaf for path, leaf in flat.items() if path.endswith("/kernel")}
    dense = {path: leaf for path, leaf in kernels.items() if leaf.ndim == 2 + is_stacked(path)}  # no convolution
    there = sorted({_name(path) for path in dense})
    unknown = [name for name in names if name not in there]
    if unknown:
        raise ConfigError(
            f"tuning.targets: no dense layer of the model is called {' or '.join(unknown)}, only {', '.join(there)}"
        )
    return {path: dense[path] for path in sorted(dense) if _name(path) in names}


def is_stacked(path: str) -> bool:
    """Whether leaves under this path have a leading axis of layers."""
    first, last = layer_range(path) or (0, 0)
    return last > first


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]
