"""The layers in the parameter tree: one by one, or stacked for `lax.scan`.

An encoder's parameters are `{"embeddings": ..., "layers": {segment: ..., ...}}`. A *segment* is a run of consecutive
layers: the key "3" holds layer 3 with its leaves as they are, the key "0-7" holds layers 0 to 7 with every leaf stacked
on a leading axis [8, ...]. An unrolled network has one segment per layer, a scanned one has a single stacked segment,
or two if the lower layers are frozen, so that a path alone says whether a leaf trains.

The unrolled tree is the canonical one. `group` and `ungroup` convert between the two, bit for bit, any pytree that
holds "layers" dicts (parameters, a trainable part of them, an optimizer's state), of numpy or jax arrays, and
under `jax.eval_shape`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvalues.errors import UserError

Segment = tuple[int, int]  # first and last layer, both included
Segments = tuple[Segment, ...]
Grouping = Segments | Mapping[str, Segments]  # of the one stack of layers, or {key that holds a stack: segments}

LAYERS = "layers"
_KEY = re.compile(r"(\d+)(?:-(\d+))?")


def segments_for(num_layers: int, scan: bool, boundary: int = 0, top_alone: bool = False) -> Segments:
    """The segments of a network of `num_layers` layers; a scanned one is cut below layer `boundary` (0: not cut).

    With `top_alone` the highest layer of a scanned network is a segment of its own.
    """
    if not 0 <= boundary <= num_layers:
        raise UserError(f"the lowest trainable layer is {boundary}, but must lie between 0 and {num_layers}")
    if not scan:
        return tuple((i, i) for i in range(num_layers))
    cuts = sorted({0, boundary, num_layers - top_alone, num_layers})
    return tuple((first, end - 1) for first, end in itertools.pairwise(cuts))


def segment_key(segment: Segment) -> str:
    """The dict key of a segment: "3" for (3, 3), "0-7" for (0, 7)."""
    first, last = segment
    return str(first) if first == last else f"{first}-{last}"


def parse_key(key: str) -> Segment | None:
    """The segment a dict key names, or None where it names none."""
    match = _KEY.fullmatch(key) if isinstance(key, str) else None
    return match and (int(match[1]), int(match[2] or match[1]))


def layer_range(path: str) -> Segment | None:
    """The segment that a parameter path belongs to (`…/layers/4-7/…`), None outside the layers."""
    match = re.search(r"(?:^|/)layers/(\d+(?:-\d+)?)/", path)
    return match and parse_key(match[1])


def group(tree: Any, segments: Grouping) -> Any:
    """Stack the layers of a canonical (unrolled) tree into `segments`; an absent segment stays absent.

    For stacks of different depth, `segments` maps each key that holds one ("encoder", "decoder"), anywhere in the
    tree, to its segments.
    """

    def stack(owner: str, layers: dict[str, Any]) -> dict[str, Any]:
        if isinstance(segments, Mapping) and owner not in segments:
            raise UserError(
                f"the layers of '{owner}' are to be stacked, but only those of {', '.join(segments)} can be"
            )
        wanted = segments[owner] if isinstance(segments, Mapping) else segments
        grouped, rest = {}, set(layers)
        for first, last in wanted:
            names = [str(i) for i in range(first, last + 1)]
            present = [name for name in names if name in layers]
            if not present:
                continue
            if present != names:
                missing = ", ".join(sorted(set(names) - set(present), key=int))
                raise UserError(f"layers {first} to {last} are to be stacked, but layer {missing} is not in the tree")
            grouped[segment_key((first, last))] = (
                layers[names[0]] if first == last else jax.tree.map(_stack, *(layers[name] for name in names))
            )
            rest -= set(names)
        if rest:
            raise UserError(f"layer {', '.join(sorted(rest))} belongs to none of the segments {wanted}")
        return grouped

    return _map_layers(stack, tree)


def ungroup(tree: Any) -> Any:
    """The canonical (unrolled) form of a tree: every stacked segment is split into its layers."""

    def unstack(_: str, layers: dict[str, Any]) -> dict[str, Any]:
        flat = {}
        for key in sorted(layers, key=parse_key):
            (first, last), leaves = parse_key(key), layers[key]
            for i in range(first, last + 1):
                flat[str(i)] = leaves if first == last else jax.tree.map(lambda x, at=i - first: x[at], leaves)
        return flat

    return _map_layers(unstack, tree)


def _map_layers(change: Callable[[str, dict], dict], tree: Any, owner: str = "") -> Any:
    """Apply `change(owner, layers)` to every dict of segments in a pytree; `owner` is the key of the dict that holds
    it."""
    if isinstance(tree, dict):
        return {
            key: change(owner, value) if key == LAYERS and _holds_segments(value) else _map_layers(change, value, key)
            for key, value in tree.items()
        }
    return jax.tree.map(
        lambda node: _map_layers(change, node, owner) if isinstance(node, dict) else node,
        tree,
        is_leaf=lambda node: isinstance(node, dict),
    )


def _holds_segments(value: Any) -> bool:
    return isinstance(value, dict) and all(parse_key(key) for key in value)


def _stack(*leaves: Any) -> Any:
    return (jnp if any(isinstance(leaf, jax.Array) for leaf in leaves) else np).stack(leaves)
