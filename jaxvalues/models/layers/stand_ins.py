"""What may stand in a parameter tree in the place of a matrix: shards of it, or fewer bits of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxvalues.models.layers.quantized import is_quantized
from jaxvalues.models.layers.sharded import ShardedWeight, gathered


def with_whole(function: Callable[..., Any], params: Any, *rest: Any) -> Any:
    """`function(params, *rest)` with the whole of every matrix in `params` that another form stands for, made again in
    the backward pass.

    For whatever is no product with a matrix (`products.times_matrix`).
    """
    if not any(map(_stands_in, jax.tree.leaves(params, is_leaf=_stands_in))):
        return function(params, *rest)

    def whole(params: Any, *rest: Any) -> Any:
        return function(jax.tree.map(_whole, params, is_leaf=_stands_in), *rest)

    return jax.checkpoint(whole)(params, *rest)


def _whole(leaf: Any) -> jax.Array:
    return leaf.whole() if is_quantized(leaf) else gathered(leaf)


def _stands_in(leaf: Any) -> bool:
    return is_quantized(leaf) or isinstance(leaf, ShardedWeight)
