"""Combines S systems: by their mean probability, or by one logistic regression on their logits per category.

`columns` are the systems' logits [S, n, C]; the results are logits [n, C].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logsumexp

from jaxvalues.evaluation.thresholds import EXCLUDED, is_asked

PENALTY = 1.0
"""The strength of the L2 penalty, which pulls the weights towards those of the mean logit."""

_LARGEST = 14.0  # of larger logits, a stack takes this: their probabilities differ by less than a millionth


def mean(columns: np.ndarray) -> np.ndarray:
    """The logit of the mean probability over systems: [S, n, C] -> [n, C] float32.

    It is log Σ p − log Σ (1 − p), which stays finite and exact where probabilities round to 0 or 1.
    """
    columns = np.asarray(columns, np.float64)
    return (logsumexp(log_expit(columns), axis=0) - logsumexp(log_expit(-columns), axis=0)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class StackingModel:
    """A fitted combination of systems: weights[c] · (the systems' logits − centre) + bias[c] for each category c."""

    weights: np.ndarray
    """[C, S]"""
    bias: np.ndarray
    """[C]"""
    centre: np.ndarray
    """[S], the mean logit of each system where it was fitted, of what it was asked"""

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        """Logits [S, n, C] -> [n, C] float32; `EXCLUDED` where no system was asked."""
        logits = np.einsum("snc,cs->nc", _centred(columns, self.centre), self.weights) + self.bias
        return np.where(is_asked(columns).any(axis=0), logits, EXCLUDED).astype(np.float32)


def fit_stacking(columns: np.ndarray, truth: np.ndarray, penalty: float = PENALTY) -> StackingModel:
    """Fits stacking (Wolpert, 1992), which the winners of the shared task tried (Schroter et al., 2023).

    For each category, the weights w and the bias b minimise

        Σ_i log(1 + exp(−y_i z_i)) + penalty/2 · (‖w − 1/S‖² + b²),   z_i = w · (logits_i − centre) + b,   y_i = ±1

    `columns` [S, n, C] are predictions for arguments on which no system was trained. `truth` [n, C] is 0/1. The centre
    is each system's mean logit, so a constant added to all logits of a system changes nothing. A category that a system
    was not asked about (`EXCLUDED`) is its firmest No, and no part of that mean; where no system was asked, there is
    nothing to fit. With few positives the result is close to the mean of the centred logits. The objective is strictly
    convex and has exactly one minimum.
    """
    systems, _, categories = columns.shape
    asked = is_asked(columns)
    sums = np.where(asked, np.asarray(columns, np.float64), 0.0).sum(axis=(1, 2))
    centre, start = sums / np.maximum(asked.sum(axis=(1, 2)), 1), np.append(np.full(systems, 1 / systems), 0.0)
    logits = _centred(columns, centre)
    solutions = np.empty((categories, systems + 1))
    for c in range(categories):
        known = asked[:, :, c].any(axis=0)
        inputs = np.concatenate([logits[:, known, c].T, np.ones((known.sum(), 1))], axis=1)
        solutions[c] = _fit_category(inputs, np.where(truth[known, c] > 0, 1.0, -1.0), start, penalty)
    return StackingModel(solutions[:, :-1], solutions[:, -1], centre)


def cross_fit(columns: np.ndarray, truth: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Stacked logits [n, C]. Those of an argument come from weights fitted on the other folds.

    `fold` [n] is the fold of each argument. Thresholds tuned on these logits are not biased by weights that were fitted
    on the same arguments.
    """
    logits = np.empty(columns.shape[1:], np.float32)
    for k in np.unique(fold):
        stack = fit_stacking(columns[:, fold != k], truth[fold != k])
        logits[fold == k] = stack(columns[:, fold == k])
    return logits


def _fit_category(inputs: np.ndarray, signs: np.ndarray, centre: np.ndarray, penalty: float) -> np.ndarray:
    """The weights [S + 1] of one category's regression. The objective is divided by n to reduce rounding errors."""
    n = max(len(signs), 1)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margins, off = signs * (inputs @ w), w - centre
        value = np.logaddexp(0, -margins).sum() + 0.5 * penalty * off @ off
        return value / n, (penalty * off - inputs.T @ (signs * expit(-margins))) / n

    def curvature(w: np.ndarray) -> np.ndarray:
        p = expit(inputs @ w)
        return ((inputs.T * (p * (1 - p))) @ inputs + penalty * np.eye(len(w))) / n

    return minimize(loss, centre, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-7}).x


def _centred(columns: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return np.clip(np.asarray(columns, np.float64) - centre[:, None, None], -_LARGEST, _LARGEST)
