"""Contrastive loss for multi-label batches: arguments that share categories get similar embeddings.

The loss of the study (arXiv 2403.09720), with affinities a_ij = y_i·y_j of label vectors, embeddings x and batch B, is

    w_ij = a_ij / (Σ_k a_ik + ε)        ℓ_i = −log[ Σ_j w_ij exp(sim(x_i, x_j)/τ) / Σ_j exp(sim(x_i, x_j)/τ) ]

where j and k run over the batch without i, sim is the cosine similarity, and ε = 1e-6. Under `jit` over a mesh, B is
the global batch: XLA gathers the embeddings across devices, so the loss does not depend on the number of devices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

EPSILON = 1e-6


def contrastive_loss(
    embeddings: jax.Array, affinity: jax.Array, weights: jax.Array, temperature: jax.Array
) -> jax.Array:
    """Mean of ℓ_i over the rows with at least one partner, a scalar; 0 if no row has one.

    `embeddings` [B, E]. `affinity` [B, B] is not negative; its diagonal is ignored. `weights` [B] is 0 for padded rows,
    which are neither anchors nor partners.
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
    # Rows without a partner get finite inputs: a NaN here would reach the gradient even where it is masked.
    safe = anchors[:, None]
    positive = jax.nn.logsumexp(similarity, axis=1, b=jnp.where(safe, share, 1.0))
    every = jax.nn.logsumexp(similarity, axis=1, b=jnp.where(safe, others, 1.0).astype(jnp.float32))
    return jnp.sum(jnp.where(anchors, every - positive, 0.0)) / jnp.maximum(anchors.sum(), 1)


def label_affinity(labels: jax.Array) -> jax.Array:
    """The number of categories that two rows share: labels [B, C] -> [B, B]."""
    return labels @ labels.T


def view_affinity(rows: int) -> jax.Array:
    """[rows, rows]: 1 between the two views of an argument, which are adjacent rows, else 0. `rows` is even.

    The two views are two passes with different dropout, as in SimCSE (Gao et al., 2021).
    """
    argument = jnp.arange(rows) // 2
    return (argument[:, None] == argument[None, :]).astype(jnp.float32)


def affinity_for(positives: str, labels: jax.Array) -> jax.Array:
    """The affinities [B, B] for `loss.contrastive.positives`; with views, `labels` [B, C] has each row twice, adjacent.

    Raises ValueError for an unknown name.
    """
    match positives:
        case "labels":
            return label_affinity(labels)
        case "views":
            return view_affinity(len(labels))
        case "both":
            return jnp.maximum(label_affinity(labels), view_affinity(len(labels)))
    raise ValueError(f"unknown positives {positives}")
