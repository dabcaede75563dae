"""The feed-forward block of BERT, MPNet and DeBERTa."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvalues.models.layers.config import TransformerConfig
from jaxvalues.models.layers.dense import normal_dense
from jaxvalues.models.layers.ops import activation


class MLP(nn.Module):
    """The feed-forward block of BERT, MPNet and DeBERTa: [B, T, D] to [B, T, F] to [B, T, D]."""

    config: TransformerConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        x = activation(c.hidden_act)(normal_dense(c, c.intermediate_size, self.dtype, "up")(x))
        return normal_dense(c, c.hidden_size, self.dtype, "down")(x)
