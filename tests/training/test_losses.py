"""Losses: the formula, finite at any logit, one number a row, and padding that weighs nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxvalues.config import LossConfig
from jaxvalues.training.losses import bce, weighted_sum

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(6, 20)).astype(np.float32) * 3
LABELS = (RANDOM.random((6, 20)) < 0.2).astype(np.float32)


def test_bce_is_the_negative_log_likelihood_a_category() -> None:
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    expected = -(LABELS * np.log(p) + (1 - LABELS) * np.log(1 - p)).mean(axis=1)
    np.testing.assert_allclose(bce(jnp.asarray(LOGITS), LABELS), expected, rtol=1e-5)


def test_bce_and_its_gradient_are_finite_at_any_logit_and_float32_from_bfloat16() -> None:
    extreme = jnp.array([[-1e4, 1e4, -1e4, 1e4]])
    labels = jnp.array([[0.0, 1.0, 1.0, 0.0]])
    assert float(bce(extreme, labels)[0]) == 5000.0
    assert jnp.isfinite(jax.grad(lambda x: bce(x, labels).sum())(extreme)).all()
    assert bce(extreme.astype(jnp.bfloat16), labels).dtype == jnp.float32


def test_rows_of_weight_zero_add_nothing_to_the_sum_or_its_gradient() -> None:
    weights = np.array([1, 1, 0, 1, 0, 0], np.float32)

    def total(logits: jax.Array) -> jax.Array:
        return weighted_sum(LossConfig(), logits, LABELS, weights)

    value, grad = jax.value_and_grad(total)(jnp.asarray(LOGITS))
    np.testing.assert_allclose(value, np.asarray(bce(LOGITS, LABELS))[[0, 1, 3]].sum(), rtol=1e-6)
    assert (np.asarray(grad)[[2, 4, 5]] == 0).all()
    assert (np.asarray(grad)[[0, 1, 3]] != 0).all()
