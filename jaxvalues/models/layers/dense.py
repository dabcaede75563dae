"""The dense layer of all networks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvalues.models.layers.config import TransformerConfig
from jaxvalues.models.layers.products import times_matrix


class Dense(nn.Module):
    """x [..., D] times a `kernel` [D, F], plus a `bias` [F]: [..., F] in `dtype`.

    Sums are float32 whatever `dtype` is (see `layers.products`). Parameters and initial values are those of flax's
    module of this name.
    """

    features: int
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        y = times_matrix(x.astype(self.dtype), kernel)
        return (y if bias is None else y + bias).astype(self.dtype)


def normal_dense(
    config: TransformerConfig, features: int, dtype: jnp.dtype, name: str, *, use_bias: bool = True
) -> Dense:
    """A dense layer to `features`; its kernel starts normal with the config's `initializer_range`."""
    return Dense(features, use_bias, dtype, nn.initializers.normal(config.initializer_range), name=name)
