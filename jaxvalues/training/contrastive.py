"""Contrastive learning for multi-label batches: arguments are drawn together by the categories they share.

The loss of the study (arXiv 2403.09720): with affinities a_ij = y_i·y_j of label vectors, embeddings x, batch B,

    w_ij = a_ij / (Σ_k a_ik + ε)        ℓ_i = −log[ Σ_j w_ij exp(sim(x_i, x_j)/τ) / Σ_j exp(sim(x_i, x_j)/τ) ]

where j and k run over the batch without i, sim is the cosine similarity, ε = 1e-6. Under `jit` over a mesh B is the
global batch: XLA gathers the embeddings across devices, so one device and eight give the same loss.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

EPSILON = 1e-6


def contrastive_loss(
    embeddings: jax.Array, affinity: jax.Array, weights: jax.Array, temperature: jax.Array
) -> jax.Array:
    """Mean of ℓ_i over the rows that have a partner, a scalar; 0 where no row has one.

    `embeddings` [B, E]; `affinity` [B, B], not negative, its diagonal ignored; `weights` [B], 0 for padding rows, which
    are neither anchors nor partners.
    """
    x = embeddings.astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))
    real = weights > 0
    others = real[:, None] & real[None, :] & ~jnp.eye(len(x), dtype=bool)
    affinity = jnp.where(others, affinity, 0.0)
    total = affinity.sum(axis=1, keepdims=True)
    share = affinity / (total + EPSILON)
    similarity = x @ x.T / temperature
    anchors = total[:, 0] > 0
    # Rows that are no anchors are given something finite to chew on: NaN would come back through the gradient.
    safe = anchors[:, None]
    positive = jax.nn.logsumexp(similarity, axis=1, b=jnp.where(safe, share, 1.0))
    every = jax.nn.logsumexp(similarity, axis=1, b=jnp.where(safe, others, 1.0).astype(jnp.float32))
    return jnp.sum(jnp.where(anchors, every - positive, 0.0)) / jnp.maximum(anchors.sum(), 1)


def label_affinity(labels: jax.Array) -> jax.Array:
    """How many categories two rows share: labels [B, C] -> [B, B]."""
    return labels @ labels.T


def view_affinity(rows: int) -> jax.Array:
    """1 between the two views of an argument, which stand side by side: [rows, rows], rows even.

    Two passes with other dropout are the two views of SimCSE (Gao et al., 2021).
    """
    argument = jnp.arange(rows) // 2
    return (argument[:, None] == argument[None, :]).astype(jnp.float32)


def affinity_for(positives: str, labels: jax.Array) -> jax.Array:
    """The affinities [B, B] that a config asks for; `labels` [B, C] of views have each row twice, side by side."""
    match positives:
        case "labels":
            return label_affinity(labels)
        case "views":
            return view_affinity(len(labels))
        case "both":
            return jnp.maximum(label_affinity(labels), view_affinity(len(labels)))
    raise ValueError(f"no positives {positives}")
