"""Combines the probabilities of S systems: by their mean, or by one logistic regression on their logits per category.

`columns` are the systems' probabilities [S, n, C].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from jaxvalues.evaluation.decision import sigmoid

PENALTY = 1.0
"""The strength of the L2 penalty, which pulls the weights towards those of the mean logit."""

_MARGIN = 1e-6  # probabilities are clipped to [_MARGIN, 1 - _MARGIN], where logits are finite


def mean(columns: np.ndarray) -> np.ndarray:
    """The mean probability over systems: [S, n, C] -> [n, C] float32."""
    return np.asarray(columns, np.float64).mean(axis=0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class StackingModel:
    """A fitted combination of systems: sigmoid(weights[c] · the systems' logits + bias[c]) for each category c."""

    weights: np.ndarray
    """[C, S]"""
    bias: np.ndarray
    """[C]"""

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        """Probabilities [S, n, C] -> [n, C] float32."""
        return sigmoid(np.einsum("snc,cs->nc", _logits(columns), self.weights) + self.bias)


def fit_stacking(columns: np.ndarray, truth: np.ndarray, penalty: float = PENALTY) -> StackingModel:
    """Fits stacking (Wolpert, 1992), which the winners of the shared task tried (Schroter et al., 2023).

    For each category, the weights w and the bias b minimise

        Σ_i log(1 + exp(−y_i z_i)) + penalty/2 · (‖w − 1/S‖² + b²),   z_i = w · logits_i + b,   y_i = ±1

    `columns` [S, n, C] are predictions for arguments on which no system was trained. `truth` [n, C] is 0/1. With few
    positives the result is close to the mean logit. The objective is strictly convex and has exactly one minimum.
    """
    systems, _, categories = columns.shape
    logits, centre = _logits(columns), np.append(np.full(systems, 1 / systems), 0.0)
    solutions = np.empty((categories, systems + 1))
    for c in range(categories):
        inputs = np.concatenate([logits[:, :, c].T, np.ones((logits.shape[1], 1))], axis=1)
        solutions[c] = _fit_category(inputs, np.where(truth[:, c] > 0, 1.0, -1.0), centre, penalty)
    return StackingModel(solutions[:, :-1], solutions[:, -1])


def cross_fit(columns: np.ndarray, truth: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Stacked probabilities [n, C]. Those of an argument come from weights fitted on the other folds.

    `fold` [n] is the fold of each argument. Thresholds tuned on these probabilities are not biased by weights that were
    fitted on the same arguments.
    """
    probabilities = np.empty(columns.shape[1:], np.float32)
    for k in np.unique(fold):
        stack = fit_stacking(columns[:, fold != k], truth[fold != k])
        probabilities[fold == k] = stack(columns[:, fold == k])
    return probabilities


def _fit_category(inputs: np.ndarray, signs: np.ndarray, centre: np.ndarray, penalty: float) -> np.ndarray:
    """The weights [S + 1] of one category's regression. The objective is divided by n to reduce rounding errors."""
    n = len(signs)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margins, off = signs * (inputs @ w), w - centre
        value = np.logaddexp(0, -margins).sum() + 0.5 * penalty * off @ off
        return value / n, (penalty * off - inputs.T @ (signs * expit(-margins))) / n

    def curvature(w: np.ndarray) -> np.ndarray:
        p = expit(inputs @ w)
        return ((inputs.T * (p * (1 - p))) @ inputs + penalty * np.eye(len(w))) / n

    return minimize(loss, centre, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-7}).x


def _logits(columns: np.ndarray) -> np.ndarray:
    return logit(np.clip(np.asarray(columns, np.float64), _MARGIN, 1 - _MARGIN))
