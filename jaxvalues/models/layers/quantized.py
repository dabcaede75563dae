"""Frozen weights in 8 or 4 bits, made whole where they are used (weight-only quantization).

A `QuantizedWeight` stands in a parameter tree in the place of a matrix. Its numbers are whole ones times a scale: int8
has one scale for each column, int4 one for each column and each `GROUP` rows. Products are computed in the dtype of
their input; the backward pass makes the matrix again. The package qwix computes the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxvalues.errors import UserError

QUANTIZATIONS = ("int8", "int4")
GROUP = 32
"""Rows that share a scale in int4, where their number divides by it; otherwise a column has one scale."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QuantizedWeight:
    """A matrix [D, F], or a stack of them [L, D, F], as a `qwix.QArray`."""

    array: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def size(self) -> int:
        return self.array.qvalue.size

    def whole(self, dtype: jnp.dtype | None = None) -> jax.Array:
        """The matrix, rounded as it is, in `dtype` (default: that of its scales)."""
        whole = require_qwix().dequantize(self.array)
        return whole if dtype is None else whole.astype(dtype)


def quantize(matrix: jax.Array, how: str) -> QuantizedWeight:
    """A matrix [D, F], or a stack of them, in `how` "int8" or "int4". Its scales are float32."""
    rows = matrix.ndim - 2
    tiles = {rows: GROUP} if how == "int4" and matrix.shape[rows] % GROUP == 0 else None
    each = (*range(rows), rows + 1)
    return QuantizedWeight(
        require_qwix().quantize(matrix, how, channelwise_axes=each, tiled_axes=tiles, scale_dtype=jnp.float32)
    )


def is_quantized(leaf: Any) -> bool:
    """Whether a leaf of a parameter tree is a `QuantizedWeight`."""
    return isinstance(leaf, QuantizedWeight)


def require_qwix() -> Any:
    """The package qwix. Raises UserError, which names the extra, unless it is installed."""
    try:
        import qwix
    except ImportError:
        raise UserError("model.quantization needs the package qwix: pip install 'jaxvalues[quantization]'") from None
    return qwix
