"""Thresholds that turn logits into decisions, tuned for the official F1.

Tune only on data that is neither for training nor for reporting. In the shared task, tuned thresholds (probabilities of
.2 to .3) improved the score more than most changes to the network (Schroter et al. 2023 used one global threshold of
.26). The candidates come from the logits themselves. A constant added to all logits therefore changes no decision, and
language models, whose logits can all lie below -5, are decided as well as classifiers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jaxvalues.errors import UserError
from jaxvalues.statistics.f1 import harmonic_mean, precision_recall

EXCLUDED = -1e4
"""The logit of a category that a system was not asked about. It is always No, and no mean or threshold counts it."""
CANDIDATES = 200
"""The number of candidate thresholds, evenly spaced in rank; all of them for fewer logits."""

# A smaller gain is a rounding error of float64 means.
_ROUNDING = 1e-12


def decide(values: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """Decisions [n, C] int8 from values [n, C]: 1 where a value is at least its threshold.

    Values and thresholds (one number or [C]) are both logits or both probabilities. The comparison is in float32, so
    values in memory and those read from a file give the same decisions. Raises UserError for NaN.
    """
    return (_checked(values, "value") >= _checked(thresholds, "threshold")).astype(np.int8)


def is_asked(logits: np.ndarray) -> np.ndarray:
    """Whether a system was asked about a category of an argument: bool, of the shape of its logits."""
    return np.asarray(logits, np.float32) != np.float32(EXCLUDED)


def candidates(logits: ArrayLike) -> np.ndarray:
    """Candidate thresholds for logits of any shape: [G] float32, ascending, G at most `CANDIDATES`.

    They lie halfway between logits that are neighbours when sorted; the first is below all logits, the last above.
    `EXCLUDED` logits do not count.
    """
    logits = _checked(logits, "logit").ravel()
    asked = logits[is_asked(logits)]
    ordered = np.sort(asked if asked.size else logits[:1])
    at = np.linspace(0, len(ordered), min(CANDIDATES, len(ordered) + 1)).round().astype(int)
    below, above = ordered[np.maximum(at - 1, 0)], ordered[np.minimum(at, len(ordered) - 1)]
    halfway = ((below.astype(np.float64) + above) / 2).astype(np.float32)
    halfway = np.where(halfway > below, halfway, above)  # of equal neighbours, or without a number between them
    halfway[0] = min(ordered[0] - 1, np.nextafter(ordered[0], np.float32(-np.inf)))
    halfway[-1] = max(ordered[-1] + 1, np.nextafter(ordered[-1], np.float32(np.inf)))
    return np.unique(halfway)


def tune_global(truth: ArrayLike, logits: ArrayLike) -> float:
    """The one threshold of `candidates` that maximises the official F1. Truth (0/1) and logits are [n, C].

    Adjacent candidates often have the same score. The result is the middle of the longest run of best candidates: of
    runs of equal length the lowest, of two middles the lower. Raises UserError for a truth without positives.
    """
    truth, logits = _scored(truth, logits)
    cuts = candidates(logits)
    precision, recall = _curves(truth, logits, cuts)
    return float(cuts[middle_of_best(harmonic_mean(precision.mean(axis=1), recall.mean(axis=1)))])


def tune_per_category(truth: ArrayLike, logits: ArrayLike) -> np.ndarray:
    """One threshold per category [C], by coordinate ascent on the official F1, starting from `tune_global`.

    The candidates of a category come from its own logits. The categories are visited in order until a whole pass
    improves nothing. A threshold changes only for a strictly better score, so the score on this data is never lower
    than that of `tune_global`. Categories without a positive in the truth do not enter the score and keep the global
    threshold.
    """
    start = tune_global(truth, logits)
    scored = np.asarray(truth).any(axis=0)
    truth, logits = _scored(truth, logits)
    cuts = [np.union1d(candidates(column), np.float32(start)) for column in logits.T]
    curves = [_curves(truth[:, [c]], logits[:, [c]], one) for c, one in enumerate(cuts)]
    curves = [(precision[:, 0], recall[:, 0]) for precision, recall in curves]
    choice = [int(np.searchsorted(one, np.float32(start))) for one in cuts]
    improved = True
    while improved:
        improved = False
        for c, (precision, recall) in enumerate(curves):
            others = [(p[at], r[at]) for k, ((p, r), at) in enumerate(zip(curves, choice, strict=True)) if k != c]
            p, r = np.sum(others, axis=0) if others else (0.0, 0.0)
            f1 = harmonic_mean((p + precision) / len(curves), (r + recall) / len(curves))
            best = middle_of_best(f1)
            if f1[best] > f1[choice[c]] + _ROUNDING:
                choice[c] = best
                improved = True
    thresholds = np.full(len(scored), start)
    thresholds[scored] = [one[at] for one, at in zip(cuts, choice, strict=True)]
    return thresholds


def _scored(truth: ArrayLike, logits: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Truth (bool) and logits (float32) of the categories that have a positive, checked."""
    truth, logits = np.asarray(truth).astype(bool), _checked(logits, "logit")
    if truth.shape != logits.shape:
        raise UserError(f"the truth {list(truth.shape)} and the logits {list(logits.shape)} must have the same shape")
    scored = truth.any(axis=0)
    if not scored.any():
        raise UserError(
            "the held-out truth has no positive label in any category, expected at least one to tune thresholds"
        )
    return truth[:, scored], logits[:, scored]


def _curves(truth: np.ndarray, logits: np.ndarray, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall [G, C] at every threshold of `cuts` [G], for truth and logits [n, C].

    Each logit is counted once, at the number of thresholds that it reaches. Cumulative sums from the highest threshold
    give the counts at every threshold.
    """
    reached = np.searchsorted(cuts, logits, side="right")

    def count(column: np.ndarray) -> np.ndarray:
        return np.bincount(column, minlength=len(cuts) + 1)[::-1].cumsum()[::-1][1:]

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
    if np.isnan(values).any():
        raise UserError(f"a {what} must be a number, not nan")
    return values
