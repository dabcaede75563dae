"""Initial values of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
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
    is_default &= bool(jax.config.jax_threefry_partitionable) and size < 2**32
    # Of several devices each would round the last product as its own program does, and differ from one device.
    if jax.default_backend() != "cpu" or jax.device_count() > 1 or not is_default:
        return jax.random.normal(rng, tuple(shape))
    return in_one_expression(rng, tuple(shape))


# Flax traces the initial values of a parameter wherever it is used, to compare shapes. Under jit each shape is traced
# once in a process: for 30 layers that takes seconds less, in every program.
@partial(jax.jit, static_argnums=1)
def in_one_expression(rng: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`standard_normal` of a key of the default generator, for less than 2**32 numbers."""
    size = math.prod(shape)
    place = lax.iota(jnp.uint32, size)
    one, other = threefry(rng, jnp.zeros_like(place), place)
    mantissa = (one ^ other) >> np.uint32(9) | np.uint32(0x3F800000)
    lowest = np.nextafter(np.float32(-1), np.float32(0))
    uniform = (lax.bitcast_convert_type(mantissa, jnp.float32) - np.float32(1)) * (np.float32(1) - lowest) + lowest
    return (np.float32(np.sqrt(2)) * lax.erf_inv(lax.max(lowest, uniform))).reshape(shape)
