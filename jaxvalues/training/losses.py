"""Losses over logits [B, C], each as one number a row, so that padded rows and micro-batches weigh what they should."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from jaxvalues.config import LossConfig


def bce(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Binary cross-entropy, mean over categories: logits, labels [B, C] -> [B], float32."""
    return optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), labels).mean(axis=-1)


LOSSES = {"bce": bce}


def weighted_sum(config: LossConfig, logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum of row losses times `weights` [B] (0 for padding rows); the caller divides by the sum of weights."""
    return jnp.sum(LOSSES[config.kind](logits, labels) * weights)
