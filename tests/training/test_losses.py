"""Losses: each against its formula in plain numpy, finite at any logit, one number a row, compiled once."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvalues.config import LossConfig
from jaxvalues.training.losses import balanced_weights, category_losses, make_loss_hyperparameters, prior_shift

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(6, 20)).astype(np.float32) * 3
LABELS = (RANDOM.random((6, 20)) < 0.2).astype(np.float32)
TRAINING = (RANDOM.random((500, 20)) < np.linspace(0.01, 0.6, 20)).astype(np.int8)
COUNTS = TRAINING.sum(axis=0)
KINDS = ("bce", "class_balanced", "focal", "asymmetric", "class_balanced_negative_tolerant")

P = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))


def effective_number_weights(beta: float) -> np.ndarray:
    weights = 1 / np.array([sum(beta**k for k in range(n)) for n in COUNTS])  # 1 + β + … + β^(n−1)
    return 20 * weights / weights.sum()


def focal(y: np.ndarray) -> np.ndarray:
    return -y * (1 - P) ** 1.5 * np.log(P) - (1 - y) * P**1.5 * np.log(1 - P)


def asymmetric(y: np.ndarray) -> np.ndarray:
    shifted = np.maximum(P - 0.1, 0)
    return -y * (1 - P) ** 0.5 * np.log(P) - (1 - y) * shifted**3 * np.log(1 - shifted)


def negative_tolerant(y: np.ndarray) -> np.ndarray:
    prior = COUNTS / len(TRAINING)
    z = LOGITS - 0.2 * np.log((1 - prior) / prior)
    losses = y * np.log(1 + np.exp(-z)) + (1 - y) / 3 * np.log(1 + np.exp(3 * z))
    return effective_number_weights(0.999) * losses


FORMULAS: dict[str, tuple[dict[str, float], Any]] = {
    "bce": ({}, lambda y: -y * np.log(P) - (1 - y) * np.log(1 - P)),
    "class_balanced": (
        {"beta": 0.99},
        lambda y: effective_number_weights(0.99) * (-y * np.log(P) - (1 - y) * np.log(1 - P)),
    ),
    "focal": ({"gamma": 1.5}, focal),
    "asymmetric": ({"gamma_positive": 0.5, "gamma_negative": 3.0, "margin": 0.1}, asymmetric),
    "class_balanced_negative_tolerant": ({"negative_scale": 3.0, "prior_shift": 0.2}, negative_tolerant),
}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kind", KINDS)
def test_each_loss_is_its_formula(kind: str, smoothing: float) -> None:
    numbers, formula = FORMULAS[kind]
    hyper = make_loss_hyperparameters(LossConfig(kind=kind, label_smoothing=smoothing, **numbers), TRAINING)
    targets = np.where(LABELS == 1, 1 - smoothing / 2, smoothing / 2)
    np.testing.assert_allclose(category_losses(kind, LOGITS, LABELS, hyper), formula(targets), rtol=2e-5, atol=1e-6)


@pytest.mark.main_cases("*-4.0-0.05")
@pytest.mark.parametrize("margin", [0.0, 0.05])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_finite_at_any_logit_and_float32_from_bfloat16(
    kind: str, gamma: float, margin: float
) -> None:
    hyper = make_loss_hyperparameters(LossConfig(kind=kind), TRAINING[:, :8])
    hyper = hyper._replace(gamma=gamma, gamma_positive=gamma, gamma_negative=gamma, margin=margin)
    extreme = jnp.array([[-100.0, 100.0, -100.0, 100.0, -1e4, 1e4, 0.0, -2.944439]])  # the last: p = 0.05, the margin
    for labels in (jnp.zeros((1, 8)), jnp.ones((1, 8)), jnp.full((1, 8), 0.5)):
        value, grad = jax.value_and_grad(lambda x, y=labels: category_losses(kind, x, y, hyper).sum())(extreme)
        assert jnp.isfinite(value)
        assert jnp.isfinite(grad).all(), grad
    assert category_losses(kind, extreme.astype(jnp.bfloat16), labels, hyper).dtype == jnp.float32


def test_losses_without_their_own_numbers_are_plain_bce() -> None:
    plain = category_losses("bce", LOGITS, LABELS, make_loss_hyperparameters(LossConfig(), TRAINING))
    for kind, numbers in {
        "focal": {"gamma": 0.0},
        "asymmetric": {"gamma_positive": 0.0, "gamma_negative": 0.0, "margin": 0.0},
        "class_balanced": {"beta": 0.0},
        "class_balanced_negative_tolerant": {"beta": 0.0, "negative_scale": 1.0, "prior_shift": 0.0},
    }.items():
        hyper = make_loss_hyperparameters(LossConfig(kind=kind, **numbers), TRAINING)
        losses = category_losses(kind, LOGITS, LABELS, hyper)
        np.testing.assert_allclose(losses, plain, rtol=1e-5, atol=1e-7, err_msg=kind)


def test_rare_categories_weigh_more_and_are_shifted_down() -> None:
    order = np.argsort(COUNTS)
    weights = balanced_weights(TRAINING, 0.999)
    assert (np.diff(weights[order]) <= 0).all()
    assert weights.mean() == pytest.approx(1)
    assert (np.diff(prior_shift(TRAINING, 0.05)[order]) >= 0).all()


def test_categories_that_training_lacks_or_that_are_everywhere_stay_finite() -> None:
    few = np.zeros((3, 20), np.int8)
    few[:, 0] = 1
    for beta in (0.0, 0.999, 0.999999):
        assert np.isfinite(balanced_weights(few, beta)).all()
    assert np.isfinite(prior_shift(few, 0.05)).all()
    assert prior_shift(few, 0.05)[0] > 0 > prior_shift(few, 0.05)[1]


def test_other_numbers_compile_nothing_new() -> None:
    traces = []

    @jax.jit
    def loss(logits: jax.Array, hyper: Any) -> jax.Array:
        traces.append(1)
        return category_losses("asymmetric", logits, LABELS, hyper).sum()

    values = {
        float(
            loss(
                LOGITS, make_loss_hyperparameters(LossConfig(kind="asymmetric", margin=m, label_smoothing=s), TRAINING)
            )
        )
        for m in (0.0, 0.05)
        for s in (0.0, 0.1)
    }
    assert len(values) == 4
    assert len(traces) == 1


def test_a_number_that_the_kind_does_not_use_is_an_error() -> None:
    with pytest.raises(ValueError, match="`gamma` belongs to kind: focal, not to bce"):
        LossConfig(gamma=1.0)
    with pytest.raises(ValueError, match="`beta` belongs to kind: class_balanced or class_balanced_negative_tolerant"):
        LossConfig(kind="focal", beta=0.5)
