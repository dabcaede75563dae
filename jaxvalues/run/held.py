"""The dtype in which weights are held: cast once, not at every step.

In a bfloat16 computation every matrix is rounded before it is multiplied. What trains is kept in float32, since small
updates would be lost otherwise. What is frozen can be rounded when it is read, which halves its memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from jaxvalues.run.network import Network
from jaxvalues.run.system import System, Weights
from jaxvalues.tuning import Params

_MATRICES = re.compile(r"(^|/)layers/.*/kernel$|^head/dense/kernel$|/embeddings/project/kernel$")
_TABLES = re.compile(r"(^|/)embeddings/word/embedding$|^head/embedding$")  # also multiplied, for the logits of words


def frozen_dtype(path: str, dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which the frozen parameter at `path` is held for a computation in `dtype`.

    Norms, biases and small tables stay float32: they are added, in float32.
    """
    return dtype if _MATRICES.search(path) or _TABLES.search(path) else jnp.dtype(jnp.float32)


def read_dtype(network: Network) -> Callable[[str], np.dtype]:
    """The dtype in which each weight of a checkpoint is read for training: frozen matrices rounded at once.

    Tables of words stay float32 until `hold_frozen`, since a prompt or a verbalizer may start from them.
    """
    frozen, _ = network.abstract_parts()
    paths = set(flatten_dict(frozen, sep="/"))

    def dtype_of(path: str) -> np.dtype:  # a checkpoint of an encoder alone has no "encoder/"
        is_frozen = not paths.isdisjoint((path, f"encoder/{path}"))
        return np.dtype(network.dtype if is_frozen and _MATRICES.search(path) else np.float32)

    return dtype_of


def hold_frozen(system: System, weights: Weights) -> Weights:
    """The weights of a run: frozen ones rounded to the dtype of the computation, the others as they are.

    An export needs the weights that were read, not these.
    """
    dtype = system.network.dtype
    return weights._replace(frozen=_cast(weights.frozen, lambda path: frozen_dtype(path, dtype)))


def abstract_frozen(system: System, frozen: Params) -> Params:
    """Shapes of the frozen weights of a run, in the dtypes in which they are held."""
    return hold_frozen(system, Weights(frozen, {})).frozen


def hold_all(system: System, weights: Weights) -> Weights:
    """The weights for many batches of predictions: what trained is rounded too, where every batch would round it.

    The predictions are the same to the bit.
    """
    dtype = system.network.dtype

    def trained_dtype(path: str) -> jnp.dtype:
        return dtype if _MATRICES.search(path) else jnp.dtype(jnp.float32)

    return hold_frozen(system, weights)._replace(trainable=_cast(weights.trainable, trained_dtype))


def _cast(tree: Any, dtype_of: Any) -> Any:
    def cast(path: Any, leaf: jax.Array) -> jax.Array:
        dtype = dtype_of(jax.tree_util.keystr(path, simple=True, separator="/"))
        if leaf.dtype == dtype:
            return leaf
        return leaf.update(dtype=dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf.astype(dtype)

    return jax.tree_util.tree_map_with_path(cast, tree)
