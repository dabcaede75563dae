"""Layer normalisation (Ba et al., 2016) and root-mean-square normalisation (Zhang & Sennrich, 2019)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


class RMSNorm(nn.Module):
    """x [..., D] over its root mean square, times a `scale` [D]; in float32, the result in `dtype`.

    `plus_one` multiplies with 1 + `scale` instead, as Gemma does; the parameter then starts at 0.

    Parameters and numbers are those of flax's module of this name. That one multiplies `scale` with the statistics
    first, and XLA on CPU then keeps a copy of `scale` for every vector in the backward pass: a twelfth of the memory of
    a step of prompt tuning.
    """

    epsilon: float
    dtype: jnp.dtype = jnp.float32
    plus_one: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _scaled(self, x.astype(jnp.float32), self.plus_one).astype(self.dtype)


class LayerNorm(nn.Module):
    """x [..., D] minus its mean, over its standard deviation, times a `scale` [D], plus a `bias` [D]; as `RMSNorm`."""

    epsilon: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        y = _scaled(self, x - x.mean(axis=-1, keepdims=True))
        return (y + self.param("bias", nn.initializers.zeros, x.shape[-1:])).astype(self.dtype)


def _scaled(module: RMSNorm | LayerNorm, x: jax.Array, plus_one: bool = False) -> jax.Array:
    scale = module.param("scale", nn.initializers.zeros if plus_one else nn.initializers.ones, x.shape[-1:])
    scale = 1 + scale if plus_one else scale
    return x * lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + module.epsilon) * scale
