"""Finds the dense layers that LoRA and (IA)³ change, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from jaxvalues.errors import ConfigError
from jaxvalues.models.layers.layout import layer_range

BERT_LIKE = ("bert", "roberta", "xlm-roberta", "mpnet")


def default_targets(model_type: str, defaults: Mapping[str, tuple[str, ...]], method: str) -> tuple[str, ...]:
    """The default names of an architecture. Raises ConfigError for an architecture without default."""
    if model_type not in defaults:
        raise ConfigError(
            f"tuning.targets must name the dense layers that {method} changes, because {model_type} has no default"
        )
    return defaults[model_type]


def target_layers(params: Any, names: tuple[str, ...]) -> dict[str, jax.Array]:
    """{path: kernel} of the dense layers whose name is in `names`, sorted by path.

    A kernel is [in, out], or [n, in, out] in a segment of n stacked layers. Raises ConfigError for a name that no dense
    layer has.
    """
    flat = flatten_dict(params, sep="/")
    kernels = {path.removesuffix("/kernel"): leaf for path, leaf in flat.items() if path.endswith("/kernel")}
    dense = {path: leaf for path, leaf in kernels.items() if leaf.ndim == 2 + is_stacked(path)}  # no convolutions
    known = sorted({_name(path) for path in dense})
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"tuning.targets: no dense layer of the model is called {' or '.join(unknown)}, only {', '.join(known)}"
        )
    return {path: dense[path] for path in sorted(dense) if _name(path) in names}


def is_stacked(path: str) -> bool:
    """Whether the leaves below this path have a leading axis of layers."""
    first, last = layer_range(path) or (0, 0)
    return last > first


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]
