"""Dense layers initialised as BERT's are, and its feed-forward block."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvalues.models.layers.config import TransformerConfig
from jaxvalues.models.layers.ops import activation, dot_rows


def dense(config: TransformerConfig, features: int, dtype: jnp.dtype, name: str, *, use_bias: bool = True) -> nn.Dense:
    """A dense layer to `features`; its kernel starts normal with the config's `initializer_range`."""
    init = nn.initializers.normal(config.initializer_range)
    return nn.Dense(features, use_bias, dtype, kernel_init=init, dot_general=dot_rows, name=name)


class MLP(nn.Module):
    """The feed-forward block of BERT and DeBERTa: [B, T, D] to [B, T, F] to [B, T, D]."""

    config: TransformerConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        x = activation(c.hidden_act)(dense(c, c.intermediate_size, self.dtype, "up")(x))
        return dense(c, c.hidden_size, self.dtype, "down")(x)
