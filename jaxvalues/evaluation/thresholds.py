"""From probabilities to decisions: thresholds tuned on held-out data, for the official F1 itself.

Only ever tune on data that is neither trained on nor reported on. In the shared task tuned thresholds of .2 to .3 were
worth more than most changes to the network (Schroter et al. 2023 used one global threshold of .26).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jaxvalues.errors import UserError
from jaxvalues.evaluation.official import harmonic_mean, precision_recall

GRID = np.arange(1, 100) / 100
"""The thresholds tried: 0.01, 0.02 ... 0.99."""

# A gain below this is the rounding of a float64 mean, not a better score.
_ROUNDING = 1e-12


def decide(probabilities: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """Decisions [n, C] (int8) from probabilities [n, C]: 1 where a probability reaches its threshold.

    `thresholds` is one number or [C]. Both sides are compared in float32, so decisions do not depend on whether they
    come from memory or from a file. Raises UserError for anything outside [0, 1] or not finite.
    """
    return (_checked(probabilities, "probability") >= _checked(thresholds, "threshold")).astype(np.int8)


def tune_global(truth: ArrayLike, probabilities: ArrayLike) -> float:
    """The one threshold of `GRID` that maximises the official F1; truth (0/1) and probabilities are [n, C].

    Often several neighbours score the same. The middle of the longest such run is taken (of equally long ones the
    lowest; of two middles the lower), the point furthest from where decisions start to change.
    """
    precision, recall = _curves(truth, probabilities)
    return float(GRID[middle_of_best(harmonic_mean(precision.mean(axis=1), recall.mean(axis=1)))])


def tune_per_category(truth: ArrayLike, probabilities: ArrayLike) -> np.ndarray:
    """One threshold of `GRID` per category, [C], by coordinate ascent on the official F1 from `tune_global`.

    Categories are visited in order, again and again, until none improves the score. A category leaves the global
    threshold only for a strictly better score, so the result never scores lower on the data given, and a category
    without a positive in the truth, which takes no part in the score, keeps the global threshold.
    """
    precision, recall = _curves(truth, probabilities)
    start = middle_of_best(harmonic_mean(precision.mean(axis=1), recall.mean(axis=1)))
    scored = np.asarray(truth).any(axis=0)
    choice = np.full(scored.sum(), start)
    columns = np.arange(len(choice))
    improved = True
    while improved:
        improved = False
        for c in columns:
            others = columns != c
            at = choice[others], columns[others]
            f1 = harmonic_mean(
                (precision[at].sum() + precision[:, c]) / len(columns), (recall[at].sum() + recall[:, c]) / len(columns)
            )
            best = middle_of_best(f1)
            if f1[best] > f1[choice[c]] + _ROUNDING:
                choice[c] = best
                improved = True
    thresholds = np.full(len(scored), GRID[start])
    thresholds[scored] = GRID[choice]
    return thresholds


def _curves(truth: ArrayLike, probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall [G, scored categories] at every threshold of the grid, of categories with a positive.

    A probability is counted once, by how many thresholds it reaches; summing from the top gives every threshold.
    """
    truth = np.asarray(truth).astype(bool)
    probabilities = _checked(probabilities, "probability")
    if truth.shape != probabilities.shape:
        raise UserError(
            f"the truth {list(truth.shape)} and the probabilities {list(probabilities.shape)} must have the same shape"
        )
    scored = truth.any(axis=0)
    if not scored.any():
        raise UserError("the held-out truth has no positive label in any category: no threshold can be tuned on it")
    truth, probabilities = truth[:, scored], probabilities[:, scored]
    reached = np.searchsorted(GRID.astype(np.float32), probabilities, side="right")

    def count(column: np.ndarray) -> np.ndarray:
        return np.bincount(column, minlength=len(GRID) + 1)[::-1].cumsum()[::-1][1:]

    hits = np.stack([count(column[true]) for column, true in zip(reached.T, truth.T, strict=True)], axis=1)
    predicted = np.stack([count(column) for column in reached.T], axis=1)
    return precision_recall(hits, predicted, truth.sum(axis=0))


def middle_of_best(values: np.ndarray) -> int:
    """The index in the middle of the longest run of the highest value."""
    best = np.concatenate([[False], values >= values.max() - _ROUNDING, [False]])
    start, stop = np.flatnonzero(best[1:] & ~best[:-1]), np.flatnonzero(~best[1:] & best[:-1])
    longest = np.argmax(stop - start)
    return int((start[longest] + stop[longest] - 1) // 2)


def _checked(values: ArrayLike, what: str) -> np.ndarray:
    values = np.asarray(values, np.float32)
    if not ((values >= 0) & (values <= 1)).all():  # false for NaN too
        raise UserError(f"a {what} must be a number between 0 and 1, not {values[~((values >= 0) & (values <= 1))][0]}")
    return values
