"""Layer normalisation (Ba et al., 2016) and root-mean-square normalisation (Zhang & Sennrich, 2019)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


class RMSNorm(nn.Module):
    """x [..., D] over its root mean square, times a `scale` [D]; in float32, the result in `dtype`.

    Parameters are those of flax's module of this name, and so are the numbers. It, however, multiplies `scale` with the
    statistics first: in the backward pass XLA on CPU then writes `scale` out for every vector and keeps it, a twelfth
    of what a step of prompt tuning holds.
    """

    epsilon: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _scaled(self, x.astype(jnp.float32)).astype(self.dtype)


class LayerNorm(nn.Module):
    """x [..., D] less its mean, over its standard deviation, times a `scale` [D], plus a `bias` [D]; as `RMSNorm`."""

    epsilon: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        y = _scaled(self, x - x.mean(axis=-1, keepdims=True))
        return (y + self.param("bias", nn.initializers.zeros, x.shape[-1:])).astype(self.dtype)


def _scaled(module: RMSNorm | LayerNorm, x: jax.Array) -> jax.Array:
    scale = module.param("scale", nn.initializers.ones, x.shape[-1:])
    return x * lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + module.epsilon) * scale
