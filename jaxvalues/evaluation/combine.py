"""Several systems' probabilities made one: their mean, or for each category a logistic regression on their logits.

Systems lie along a first axis: `columns` are probabilities [S, n, C].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from jaxvalues.evaluation.decision import sigmoid

PENALTY = 1.0
"""Strength of the pull towards the mean logit, which a few arguments outweigh."""

_CERTAIN = 1e-6  # probabilities are kept this far from 0 and 1, where logits end


def mean(columns: np.ndarray) -> np.ndarray:
    """The mean probability over systems: [S, n, C] -> [n, C] float32."""
    return np.asarray(columns, np.float64).mean(axis=0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Stack:
    """Stacked systems: for each category c, sigmoid(weights[c] · the systems' logits + bias[c])."""

    weights: np.ndarray
    """[C, S]"""
    bias: np.ndarray
    """[C]"""

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        """Probabilities [S, n, C] -> [n, C] float32."""
        return sigmoid(np.einsum("snc,cs->nc", _logits(columns), self.weights) + self.bias)


def fit_stack(columns: np.ndarray, truth: np.ndarray, penalty: float = PENALTY) -> Stack:
    """Stacking (Wolpert, 1992) as the winners of the shared task tried it (Schroter et al., 2023).

    For each category the weights w and bias b that minimise

        Σ_i log(1 + exp(−y_i z_i)) + penalty/2 · (‖w − 1/S‖² + b²),   z_i = w · logits_i + b,   y_i = ±1

    on held-out predictions: `columns` [S, n, C], of arguments no system was trained on, and `truth` [n, C] of 0 and 1.
    Without evidence, as for a category with few positives, the result is the mean logit. The objective is strictly
    convex, so there is one minimum, whatever the data.
    """
    systems, _, categories = columns.shape
    logits, centre = _logits(columns), np.append(np.full(systems, 1 / systems), 0.0)
    solutions = np.empty((categories, systems + 1))
    for c in range(categories):
        inputs = np.concatenate([logits[:, :, c].T, np.ones((logits.shape[1], 1))], axis=1)
        solutions[c] = _minimum(inputs, np.where(truth[:, c] > 0, 1.0, -1.0), centre, penalty)
    return Stack(solutions[:, :-1], solutions[:, -1])


def cross_fit(columns: np.ndarray, truth: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Stacked probabilities [n, C] of each argument, from weights fitted on the arguments of the other folds.

    `fold` [n] numbers the fold of each argument. Thresholds tuned on these, and their score, have not seen an argument
    twice, as they would with weights fitted on the same arguments.
    """
    probabilities = np.empty(columns.shape[1:], np.float32)
    for k in np.unique(fold):
        stack = fit_stack(columns[:, fold != k], truth[fold != k])
        probabilities[fold == k] = stack(columns[:, fold == k])
    return probabilities


def _minimum(inputs: np.ndarray, signs: np.ndarray, centre: np.ndarray, penalty: float) -> np.ndarray:
    """The weights [S + 1] of one category's regression; its objective is divided by n, which rounds less."""
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
    return logit(np.clip(np.asarray(columns, np.float64), _CERTAIN, 1 - _CERTAIN))
