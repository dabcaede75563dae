"""Thresholds that turn probabilities into decisions, tuned for the official F1.

Tune only on data that is neither for training nor for reporting. In the shared task, tuned thresholds of .2 to .3
improved the score more than most changes to the network (Schroter et al. 2023 used one global threshold of .26).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jaxvalues.errors import UserError
from jaxvalues.evaluation.official import harmonic_mean, precision_recall

GRID = np.arange(1, 100) / 100
"""The candidate thresholds [G]: 0.01, 0.02 ... 0.99."""

# A smaller gain is a rounding error of float64 means.
_ROUNDING = 1e-12


def decide(probabilities: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """Decisions [n, C] int8 from probabilities [n, C]: 1 where a probability is at least its threshold.

    `thresholds` is one number or [C]. The comparison is in float32, so probabilities in memory and those read from a
    file give the same decisions. Raises UserError for values outside [0, 1] or NaN.
    """
    return (_checked(probabilities, "probability") >= _checked(thresholds, "threshold")).astype(np.int8)


def tune_global(truth: ArrayLike, probabilities: ArrayLike) -> float:
    """The one threshold of `GRID` that maximises the official F1. Truth (0/1) and probabilities are [n, C].

    Adjacent thresholds often have the same score. The result is the middle of the longest run of best thresholds: of
    runs of equal length the lowest, of two middles the lower. Raises UserError for a truth without positives.
    """
    precision, recall = _curves(truth, probabilities)
    return float(GRID[middle_of_best(harmonic_mean(precision.mean(axis=1), recall.mean(axis=1)))])


def tune_per_category(truth: ArrayLike, probabilities: ArrayLike) -> np.ndarray:
    """One threshold of `GRID` per category [C], by coordinate ascent on the official F1, starting from `tune_global`.

    The categories are visited in order until a whole pass improves nothing. A threshold changes only for a strictly
    better score, so the score on this data is never lower than that of `tune_global`. Categories without a positive in
    the truth do not enter the score and keep the global threshold.
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
    """Precision and recall [G, scored categories] at every threshold of `GRID`, for categories with a positive.

    Each probability is counted once, at the number of thresholds that it reaches. Cumulative sums from the highest
    threshold give the counts at every threshold.
    """
    truth = np.asarray(truth).astype(bool)
    probabilities = _checked(probabilities, "probability")
    if truth.shape != probabilities.shape:
        raise UserError(
            f"the truth {list(truth.shape)} and the probabilities {list(probabilities.shape)} must have the same shape"
        )
    scored = truth.any(axis=0)
    if not scored.any():
        raise UserError(
            "the held-out truth has no positive label in any category, expected at least one to tune thresholds"
        )
    truth, probabilities = truth[:, scored], probabilities[:, scored]
    reached = np.searchsorted(GRID.astype(np.float32), probabilities, side="right")

    def count(column: np.ndarray) -> np.ndarray:
        return np.bincount(column, minlength=len(GRID) + 1)[::-1].cumsum()[::-1][1:]

    hits = np.stack([count(column[true]) for column, true in zip(reached.T, truth.T, strict=True)], axis=1)
    predicted = np.stack([count(column) for column in reached.T], axis=1)
    return precision_recall(hits, predicted, truth.sum(axis=0))


def middle_of_best(values: np.ndarray) -> int:
    """The index in the middle of the longest run of the highest value (see `tune_global`)."""
    best = np.concatenate([[False], values >= values.max() - _ROUNDING, [False]])
    start, stop = np.flatnonzero(best[1:] & ~best[:-1]), np.flatnonzero(~best[1:] & best[:-1])
    longest = np.argmax(stop - start)
    return int((start[longest] + stop[longest] - 1) // 2)


def _checked(values: ArrayLike, what: str) -> np.ndarray:
    values = np.asarray(values, np.float32)
    if not ((values >= 0) & (values <= 1)).all():  # false for NaN too
        raise UserError(f"a {what} must be a number between 0 and 1, not {values[~((values >= 0) & (values <= 1))][0]}")
    return values
