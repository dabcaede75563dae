"""Initial values of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvalues.models.layers.ops import threefry


def normal(stddev: float) -> Any:
    """Flax's `nn.initializers.normal`, the same values up to rounding, which compiles faster on CPU."""

    def init(rng: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return standard_normal(rng, shape).astype(dtype) * jnp.asarray(stddev, dtype)

    return init


def standard_normal(rng: jax.Array, shape: Sequence[int]) -> jax.Array:
    """`jax.random.normal` in float32, the same values bit for bit.

    On CPU all rounds of the generator stand in one expression, which compiles in half the time: a small network has a
    dozen shapes, and each is a program of its own to XLA.
    """
    size = math.prod(shape)
    is_default = jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) and jax.random.key_impl(rng) == "threefry2x32"
    if jax.default_backend() != "cpu" or not is_default or not jax.config.jax_threefry_partitionable or size >= 2**32:
        return jax.random.normal(rng, tuple(shape))
    place = lax.iota(jnp.uint32, size)
    one, other = threefry(rng, jnp.zeros_like(place), place)
    mantissa = (one ^ other) >> np.uint32(9) | np.uint32(0x3F800000)
    lowest = np.nextafter(np.float32(-1), np.float32(0))
    uniform = (lax.bitcast_convert_type(mantissa, jnp.float32) - np.float32(1)) * (np.float32(1) - lowest) + lowest
    return (np.float32(np.sqrt(2)) * lax.erf_inv(lax.max(lowest, uniform))).reshape(tuple(shape))
