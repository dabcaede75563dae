"""Combining systems: the mean against numpy, the stack against its own objective and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from jaxvalues.evaluation.combine import PENALTY, StackingModel, cross_fit, fit_stacking, mean
from jaxvalues.evaluation.decision import sigmoid
from jaxvalues.evaluation.thresholds import EXCLUDED, is_asked


def made_up(systems: int = 3, rows: int = 200, categories: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [S, n, C] of systems of which the first knows most, and the truth [n, C]."""
    random = np.random.default_rng(seed)
    truth = (random.random((rows, categories)) < np.linspace(0.02, 0.4, categories)).astype(np.int8)
    noise = random.normal(size=(systems, rows, categories)) * np.arange(1, systems + 1)[:, None, None]
    return np.clip(3 * truth - 2 + noise, -11, 11), truth


def centred(columns: np.ndarray) -> np.ndarray:
    return columns - columns.mean(axis=(1, 2), keepdims=True)


def objective(columns: np.ndarray, truth: np.ndarray, c: int, w: np.ndarray, penalty: float = PENALTY) -> float:
    """What is minimised for category c, written out argument by argument; w is the weights and the bias."""
    total = 0.0
    for i, y in enumerate(truth[:, c]):
        z = sum(w[s] * centred(columns)[s, i, c] for s in range(len(columns))) + w[-1]
        p = 1 / (1 + np.exp(-z))
        total -= np.log(p if y else 1 - p)
    return total + penalty / 2 * (sum((w[:-1] - 1 / len(columns)) ** 2) + w[-1] ** 2)


def test_the_mean_is_numpys() -> None:
    columns, _ = made_up()
    assert mean(columns).dtype == np.float32
    np.testing.assert_allclose(sigmoid(mean(columns)), sigmoid(columns).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(mean(columns[:1]), columns[0], rtol=1e-6)
    # Where all probabilities round to 0 or 1, the logit of their mean is still exact: that of the largest, less log 2.
    np.testing.assert_allclose(mean(np.array([[[-200.0]], [[-300.0]]])), -200 - np.log(2), rtol=1e-6)
    np.testing.assert_allclose(mean(np.array([[[200.0]], [[300.0]]])), 200 + np.log(2), rtol=1e-6)


def test_a_stack_is_a_linear_function_of_centred_logits() -> None:
    columns, _ = made_up()
    random = np.random.default_rng(1)
    stack = StackingModel(random.normal(size=(20, 3)), random.normal(size=20), np.array([0.5, -1.0, 2.0]))
    z = sum((columns[s] - stack.centre[s]) * stack.weights[:, s] for s in range(3)) + stack.bias
    np.testing.assert_allclose(stack(columns), z, rtol=1e-4, atol=1e-5)


def test_a_constant_in_the_logits_of_a_system_changes_no_stack() -> None:
    columns, truth = made_up()
    shifted = columns + np.array([0.0, -7.0, 30.0])[:, None, None]
    np.testing.assert_allclose(
        fit_stacking(shifted, truth)(shifted), fit_stacking(columns, truth)(columns), rtol=1e-4, atol=1e-4
    )


def test_what_no_system_was_asked_about_stays_excluded_and_moves_nothing_else() -> None:
    columns, truth = made_up(2)
    shortlist = np.random.default_rng(3).random(truth.shape) < 0.4 + 0.4 * truth
    some = np.where(shortlist, columns, EXCLUDED)
    stack = fit_stacking(some, truth)
    np.testing.assert_allclose(stack.centre, columns[:, shortlist].mean(axis=1))
    logits = stack(some)
    assert (is_asked(logits) == shortlist).all()
    assert np.corrcoef(logits[shortlist], truth[shortlist])[0, 1] > 0.7
    none = np.where(np.arange(20) == 4, EXCLUDED, columns)  # of a category that nothing was asked about
    assert np.isfinite(fit_stacking(none, truth)(columns)).all()


@pytest.mark.parametrize("penalty", [PENALTY, 25.0])
def test_the_stack_is_where_the_objective_is_lowest(penalty: float) -> None:
    columns, truth = made_up(rows=60)
    stack = fit_stacking(columns, truth, penalty)
    random = np.random.default_rng(2)
    for c in (0, 7, 19):
        w = np.append(stack.weights[c], stack.bias[c])
        best = objective(columns, truth, c, w, penalty)
        for step in (1e-3, 0.1, 1.0):
            for direction in random.normal(size=(5, 4)):
                assert objective(columns, truth, c, w + step * direction, penalty) > best
        slopes = [
            (objective(columns, truth, c, w + e, penalty) - objective(columns, truth, c, w - e, penalty)) / 2e-4
            for e in 1e-4 * np.eye(4)
        ]
        np.testing.assert_allclose(slopes, 0, atol=1e-4)


def test_the_better_system_weighs_more() -> None:
    columns, truth = made_up(rows=2000)
    weights = fit_stacking(columns, truth).weights[10:]
    assert (weights[:, 0] > 2 * weights[:, 1]).all()
    assert (weights[:, 1] > weights[:, 2]).all()


def test_without_evidence_a_stack_is_the_mean_of_centred_logits() -> None:
    columns, truth = made_up()
    stack = fit_stacking(columns, truth, penalty=1e9)
    np.testing.assert_allclose(stack.weights, 1 / 3, atol=1e-5)
    np.testing.assert_allclose(stack.bias, 0, atol=1e-5)


def test_certain_probabilities_and_one_sided_truths_give_finite_stacks() -> None:
    columns, truth = made_up(rows=30)
    columns[0] = 1e4 * (2.0 * truth - 1)  # right, and certain of it
    columns[1, :, :10] = -columns[0, :, :10]
    truth[:, 3], truth[:, 4] = 0, 1
    stack = fit_stacking(columns, truth)
    assert np.isfinite(stack.weights).all()
    assert np.isfinite(stack.bias).all()
    assert np.isfinite(stack(columns)).all()
    assert stack(columns)[:, 3].max() < 0 < stack(columns)[:, 4].min()


def test_cross_fitting_never_predicts_what_it_was_fitted_on() -> None:
    columns, truth = made_up(rows=100)
    fold = np.random.default_rng(0).integers(0, 5, 100)
    logits = cross_fit(columns, truth, fold)
    for k in range(5):
        stack = fit_stacking(columns[:, fold != k], truth[fold != k])
        assert np.array_equal(logits[fold == k], stack(columns[:, fold == k]))
    # Other labels of one fold change nothing in its own predictions.
    changed = truth.copy()
    changed[fold == 2] = 1 - changed[fold == 2]
    again = cross_fit(columns, changed, fold)
    assert np.array_equal(again[fold == 2], logits[fold == 2])
    assert not np.array_equal(again[fold != 2], logits[fold != 2])
