"""Where the leaves of a checkpoint go, and how they come there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PlaceArray = Callable[[str, np.ndarray], jax.Array]
"""(path, array) -> the array on its devices."""


class Place:
    """Reads the tensors of a checkpoint and puts them on the default device. Others go elsewhere, or read otherwise."""

    def dtype_of(self, path: str) -> np.dtype:
        """The dtype in which the leaf at `path` is placed."""
        return np.dtype(np.float32)

    def read(self, tensor: Any) -> np.ndarray:
        """The numbers of a lazy tensor, float32."""
        return np.asarray(tensor, dtype=np.float32)

    def __call__(self, path: str, array: np.ndarray) -> jax.Array:
        """The leaf at `path` on its devices; `array` has the dtype of `dtype_of`."""
        return jnp.asarray(array)

    def stack(self, path: str, shape: tuple[int, ...], layers: Iterable[np.ndarray]) -> jax.Array:
        """The leaf of several layers at `path`, of `shape` [L, ...], on its devices; `layers` has L float32 arrays."""
        leaf = np.empty(shape, self.dtype_of(path))
        for i, layer in enumerate(layers):
            leaf[i] = layer
        return self(path, leaf)


class _ByFunction(Place):
    """A plain function that puts arrays on devices."""

    def __init__(self, function: PlaceArray) -> None:
        self.function = function

    def __call__(self, path: str, array: np.ndarray) -> jax.Array:
        return self.function(path, array)


class _Nowhere(Place):
    def read(self, tensor: Any) -> np.ndarray:
        raise AssertionError("nothing is read")


check_only = _Nowhere()
"""The place with which a checkpoint is checked against a model, and none of its numbers are read."""

PlaceLike = Place | PlaceArray | None
"""What `as_place` takes."""


def as_place(place: PlaceLike) -> Place:
    """A function as a `Place`; the default device for None."""
    if isinstance(place, Place):
        return place
    return Place() if place is None else _ByFunction(place)
