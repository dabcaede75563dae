"""The form in which weights are held: cast or quantized once, not at every step.

In a bfloat16 computation every matrix is rounded before it is multiplied. What trains is kept in float32, since small
updates would be lost otherwise. What is frozen can be rounded when it is read, which halves its memory.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from jaxvalues.models.layers.quantized import is_quantized, quantize
from jaxvalues.run.network import Network
from jaxvalues.run.system import System, Weights
from jaxvalues.training.sharding import place_on
from jaxvalues.tuning import Params

_LAYERS = re.compile(r"(^|/)layers/.*/kernel$")
_MATRICES = re.compile(_LAYERS.pattern + r"|^head/dense/kernel$|/embeddings/project/kernel$")
_TABLES = re.compile(r"(^|/)embeddings/word/embedding$|^head/embedding$")  # also multiplied, for the logits of words


def frozen_dtype(path: str, dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which the frozen parameter at `path` is held for a computation in `dtype`.

    Norms, biases and small tables stay float32: they are added, in float32.
    """
    return dtype if _MATRICES.search(path) or _TABLES.search(path) else jnp.dtype(jnp.float32)


def place_held(network: Network, mesh: Mesh) -> place_on:
    """The place for the weights of a checkpoint to train with: frozen matrices are rounded or quantized at once.

    Tables of words stay float32 until `hold_frozen`, since a prompt or a verbalizer may start from them.
    """
    frozen, _ = network.abstract_parts()
    paths = set(flatten_dict(frozen, sep="/"))

    def is_frozen_matrix(path: str) -> bool:  # a checkpoint of an encoder alone has no "encoder/"
        return not paths.isdisjoint((path, f"encoder/{path}")) and _MATRICES.search(path) is not None

    return place_on(
        mesh,
        lambda path: np.dtype(network.dtype if is_frozen_matrix(path) else np.float32),
        lambda path, leaf: (
            hold_leaf(path, leaf, network.dtype, network.quantization) if is_frozen_matrix(path) else leaf
        ),
    )


def hold_leaf(path: str, leaf: Any, dtype: jnp.dtype, quantization: str | None) -> Any:
    """The frozen parameter at `path`, or its shape, as it is held for a computation in `dtype`.

    With `quantization` ("int8" or "int4"), matrices of layers become a `QuantizedWeight`, from their values in `dtype`.
    """
    if quantization is None or not _LAYERS.search(path):
        return _as_dtype(leaf, frozen_dtype(path, dtype))
    if is_quantized(leaf):
        return leaf
    made = _quantize_in(quantization, dtype)
    return jax.eval_shape(made, leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else made(leaf)


def hold_frozen(system: System, weights: Weights) -> Weights:
    """The weights of a run: frozen ones rounded to the dtype of the computation or quantized, the others as they are.

    An export needs the weights that were read, not these.
    """
    return weights._replace(frozen=held_tree(weights.frozen, system.network))


def held_tree(frozen: Params, network: Network) -> Params:
    """Frozen weights, or their shapes, as they are held."""
    return _by_path(frozen, lambda path, leaf: hold_leaf(path, leaf, network.dtype, network.quantization))


def hold_all(system: System, weights: Weights) -> Weights:
    """The weights for many batches of predictions: what trained is rounded too, where every batch would round it.

    The predictions are the same to the bit.
    """
    dtype = system.network.dtype

    def cast(path: str, leaf: Any) -> Any:
        return _as_dtype(leaf, dtype if _MATRICES.search(path) else jnp.dtype(jnp.float32))

    return hold_frozen(system, weights)._replace(trainable=_by_path(weights.trainable, cast))


def _as_dtype(leaf: Any, dtype: jnp.dtype) -> Any:
    if leaf.dtype == dtype:
        return leaf
    return leaf.update(dtype=dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf.astype(dtype)


@functools.cache
def _quantize_in(how: str, dtype: jnp.dtype) -> Any:
    return jax.jit(lambda matrix: quantize(matrix.astype(dtype), how))


def _by_path(tree: Any, function: Callable[[str, Any], Any]) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(jax.tree_util.keystr(path, simple=True, separator="/"), leaf),
        tree,
        is_leaf=is_quantized,
    )
