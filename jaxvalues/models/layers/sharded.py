"""Weights that lie in shards on several devices, and are gathered where they are used.

A `ShardedWeight` stands in a parameter tree in the place of a matrix. Products with it (`products.times_matrix`) gather
it to multiply and keep its shards alone for the backward pass, which gathers it again. So of all layers only one is
whole at a time. This is ZeRO stage 3 (Rajbhandari et al., 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding


class Placement(NamedTuple):
    """Where a matrix is between its uses, and where it is while it is used. With `again` the backward pass gathers it
    again; otherwise the whole is kept for it."""

    kept: NamedSharding
    used: NamedSharding
    again: bool = True


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ShardedWeight:
    """A matrix [D, F] in shards; `array` may have an axis of layers before these, [L, D, F], of which one is taken."""

    array: jax.Array
    placement: Placement = field(metadata={"static": True})


def gather(array: jax.Array, placement: Placement) -> jax.Array:
    """The whole of an array in shards. Call it inside jit.

    Without the first constraint, XLA gathers all layers of a stack before the loop that takes one of them. Without the
    second it moves whatever is smaller: with few tokens, it gathers and sums activations instead.
    """
    return lax.with_sharding_constraint(lax.with_sharding_constraint(array, placement.kept), placement.used)


def gathered(weight: Any, dtype: jnp.dtype | None = None) -> jax.Array:
    """The whole matrix, in `dtype` where one is given; its gradient is split again. An array is returned as it is.

    Whoever keeps it for the backward pass keeps the whole: see `stand_ins.with_whole`.
    """
    if not isinstance(weight, ShardedWeight):
        return weight if dtype is None else weight.astype(dtype)
    array, placement = weight.array, weight.placement
    whole = jax.custom_vjp(lambda x: gather(x, placement))
    whole.defvjp(lambda x: (whole(x), None), lambda _, grad: (lax.with_sharding_constraint(grad, placement.kept),))
    return whole(array if dtype is None else array.astype(dtype))


def gathered_once(params: Any) -> Any:
    """Parameters whose sharded weights are kept whole from the forward to the backward pass: those of a layer that the
    backward pass computes again, or that stands alone."""

    def once(leaf: Any) -> Any:
        return replace(leaf, placement=leaf.placement._replace(again=False)) if _is_sharded(leaf) else leaf

    return jax.tree.map(once, params, is_leaf=_is_sharded)


def _is_sharded(leaf: Any) -> bool:
    return isinstance(leaf, ShardedWeight)
