"""The official F1 and the mean category F1 from counts, and their derivatives.

Counts are arrays [..., C] of true positives (`hits`), predicted positives (`predicted`) and positives in the truth
(`true`). They may be sums of anything: of arguments, of conclusions, of conclusions with weights.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

Figure = Literal["official_f1", "mean_category_f1"]
FIGURES: tuple[Figure, ...] = get_args(Figure)


class MacroScores(NamedTuple):
    """The figures of the official score, each [...]."""

    official_f1: np.ndarray
    macro_precision: np.ndarray
    macro_recall: np.ndarray
    mean_category_f1: np.ndarray


def precision_recall(hits: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall from counts of the same shape.

    Precision is 0 where nothing is predicted. Both are 0 where `true` is 0; exclude these categories from means. Counts
    may be sums with weights: only a 0 counts as nothing.
    """
    return hits / np.where(predicted > 0, predicted, 1), hits / np.where(true > 0, true, 1)


def harmonic_mean(precision: np.ndarray | float, recall: np.ndarray | float) -> np.ndarray:
    """F1 = 2PR / (P + R) for each element, and 0 where both are 0."""
    total = np.add(precision, recall)
    return 2 * np.multiply(precision, recall) / np.where(total > 0, total, 1)


def macro_scores(
    hits: np.ndarray,
    predicted: np.ndarray,
    true: np.ndarray,
    whole: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> MacroScores:
    """The official score from counts [..., C] (SemEval-2023 Task 4, Kiesel et al. 2023).

    The official F1 is the harmonic mean of macro-precision and macro-recall. All means are over the categories with at
    least one positive in the truth (`true` > 0), separately for each element of [...]. Without any, all figures are 0.

    Of a resampled data set, `whole` are the three counts of the data set that it was drawn from. The categories are
    then those with a positive there. One that has none in the resampled truth takes precision and recall from `whole`.
    """
    precision, recall = precision_recall(hits, predicted, true)
    found = np.asarray(true) > 0
    if whole is not None:
        whole_precision, whole_recall = precision_recall(*whole)
        precision = np.where(found, precision, whole_precision)
        recall = np.where(found, recall, whole_recall)
        found = np.asarray(whole[2]) > 0
    f1 = harmonic_mean(precision, recall)
    number = np.maximum(np.sum(found, axis=-1), 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.sum(values * found, axis=-1) / number

    macro_precision, macro_recall = mean(precision), mean(recall)
    return MacroScores(harmonic_mean(macro_precision, macro_recall), macro_precision, macro_recall, mean(f1))


def figure_of(
    figure: Figure,
    hits: np.ndarray,
    predicted: np.ndarray,
    true: np.ndarray,
    whole: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """One of `FIGURES` from counts [..., C]: [...]. See `macro_scores`."""
    return getattr(macro_scores(hits, predicted, true, whole), figure)


def gradient_of(
    figure: Figure, hits: np.ndarray, predicted: np.ndarray, true: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The derivatives of `figure_of` by hits, predicted and true, each [..., C]; 0 where a count is 0."""
    precision, recall = precision_recall(hits, predicted, true)
    found = np.asarray(true) > 0
    number = np.maximum(np.sum(found, axis=-1, keepdims=True), 1)
    if figure == "mean_category_f1":  # the mean of 2 hits / (predicted + true)
        total = np.where(found, np.add(predicted, true), 1)
        by_hits = found * 2 / total / number
        by_total = -by_hits * hits / total
        return by_hits, by_total, by_total
    mean_precision = np.sum(precision * found, axis=-1, keepdims=True) / number
    mean_recall = np.sum(recall * found, axis=-1, keepdims=True) / number
    square = np.square(mean_precision + mean_recall)
    square = np.where(square > 0, square, 1)
    by_precision = found * 2 * mean_recall**2 / square / number
    by_recall = found * 2 * mean_precision**2 / square / number
    per_predicted = by_precision * (np.asarray(predicted) > 0) / np.where(np.asarray(predicted) > 0, predicted, 1)
    per_true = by_recall / np.where(found, true, 1)
    return per_predicted + per_true, -per_predicted * precision, -per_true * recall
