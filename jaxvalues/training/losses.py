"""Losses over logits [B, C]: one number per row and category, which the step weighs (padded rows have weight 0).

The loss of a category is y·positive(z) + (1 − y)·negative(z) times its weight. Every kind has its own two terms.
Targets y may be smoothed. Losses and gradients are finite for logits of any size. The numbers of a loss are traced, so
a sweep over them compiles nothing new.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import log_sigmoid, softplus

from jaxvalues.config import LossConfig


class LossHyperparameters(NamedTuple):
    """The numbers that a loss takes as traced arrays. All fields are set, also those that its kind does not use."""

    label_smoothing: jax.Array
    gamma: jax.Array
    gamma_positive: jax.Array
    gamma_negative: jax.Array
    margin: jax.Array
    negative_scale: jax.Array
    category_weights: jax.Array  # [C]
    shift: jax.Array  # [C], added to the logits
    contrastive_weight: jax.Array
    temperature: jax.Array

    def for_categories(self, categories: jax.Array) -> LossHyperparameters:
        """The same numbers for logits [B, K] of the `categories` [B, K]: category weights and shift become [B, K]."""
        return self._replace(category_weights=self.category_weights[categories], shift=self.shift[categories])


def make_loss_hyperparameters(config: LossConfig, labels: np.ndarray) -> LossHyperparameters:
    """The numbers of a config. Category weights and shift are computed from the training `labels` [n, C]."""
    contrastive = config.contrastive
    joint = contrastive is not None and contrastive.use == "joint"
    return LossHyperparameters(
        label_smoothing=np.float32(config.label_smoothing),
        gamma=np.float32(config.gamma),
        gamma_positive=np.float32(config.gamma_positive),
        gamma_negative=np.float32(config.gamma_negative),
        margin=np.float32(config.margin),
        negative_scale=np.float32(config.negative_scale),
        category_weights=balanced_weights(labels, config.beta),
        shift=prior_shift(labels, config.prior_shift),
        contrastive_weight=np.float32(contrastive.weight if joint else 0.0),
        temperature=np.float32(contrastive.temperature if contrastive else 1.0),
    )


def balanced_weights(labels: np.ndarray, beta: float) -> np.ndarray:
    """Category weights [C] with mean 1, by the effective number of examples: w_c ∝ (1 − β) / (1 − β^n_c).

    n_c is the number of positives in `labels` [n, C]; a category without positives counts as having one. Source: Cui et
    al. (2019), "Class-Balanced Loss Based on Effective Number of Samples", eq. 2.
    """
    count = np.maximum(labels.sum(axis=0), 1).astype(np.float64)
    weights = (1 - beta) / (1 - beta**count)
    return (weights / weights.mean()).astype(np.float32)


def prior_shift(labels: np.ndarray, kappa: float) -> np.ndarray:
    """The shift [C] of the logits towards the prior of each category: −κ·log(n / n_c − 1), negative for rare ones.

    Source: Wu et al. (2020), "Distribution-Balanced Loss", section 3.2, which subtracts the negated shift.
    """
    n = len(labels)
    share = np.clip(labels.sum(axis=0) / n, 0.5 / n, 1 - 0.5 / n)
    return (-kappa * np.log(1 / share - 1)).astype(np.float32)


def category_losses(kind: str, logits: jax.Array, labels: jax.Array, hyper: LossHyperparameters) -> jax.Array:
    """The loss of each row and category: logits and labels [B, C] -> [B, C], float32.

    For rows with K questions each, all are [B, K], and `hyper` comes from `hyper.for_categories`. Raises ValueError for
    an unknown `kind`.
    """
    z = logits.astype(jnp.float32)
    positive, negative, weights = _terms(kind, z, hyper)
    targets = labels * (1 - hyper.label_smoothing) + 0.5 * hyper.label_smoothing
    return (targets * positive + (1 - targets) * negative) * weights


def _terms(kind: str, z: jax.Array, hyper: LossHyperparameters) -> tuple[jax.Array, jax.Array, jax.Array | float]:
    """(loss of a positive, loss of a negative, category weights) at logits z [B, C]."""
    match kind:
        case "bce":
            return softplus(-z), softplus(z), 1.0
        case "class_balanced":  # a category has one weight for positives and negatives
            return softplus(-z), softplus(z), hyper.category_weights
        case "focal":  # Lin et al. (2017), eq. 4, with (1 − p_t)^γ = exp(γ·log(1 − p_t))
            return (
                _focus(log_sigmoid(-z), hyper.gamma) * softplus(-z),
                _focus(log_sigmoid(z), hyper.gamma) * softplus(z),
                1.0,
            )
        case "asymmetric":
            positive = _focus(log_sigmoid(-z), hyper.gamma_positive) * softplus(-z)
            return positive, _shifted_negative(z, hyper.gamma_negative, hyper.margin), 1.0
        case "class_balanced_negative_tolerant":
            # Huang et al. (2021), "Balancing Methods for Multi-label Text Classification", section 3: CB-NTR without
            # the focal factor. The factor λ makes the loss of negatives far below 0 vanish sooner.
            shifted, scale = z + hyper.shift, hyper.negative_scale
            return softplus(-shifted), softplus(scale * shifted) / scale, hyper.category_weights
    raise ValueError(f"unknown loss kind {kind}")


def _focus(log_p: jax.Array, gamma: jax.Array) -> jax.Array:
    return jnp.exp(gamma * log_p)


def _shifted_negative(z: jax.Array, gamma: jax.Array, margin: jax.Array) -> jax.Array:
    """−p_m^γ·log(1 − p_m) with p_m = max(p − m, 0): Ridnik et al. (2021), "Asymmetric Loss", eqs. 5 to 7."""
    p = jax.nn.sigmoid(z) - margin
    counts = p > 0
    # log(1 − p_m) with 1 − p_m = (1 − p) + m; logaddexp keeps it finite at p = 1 with m = 0.
    cost = -jnp.logaddexp(log_sigmoid(-z), jnp.log(margin))
    return jnp.where(counts, jnp.exp(gamma * jnp.log(jnp.where(counts, p, 1.0))) * cost, 0.0)
