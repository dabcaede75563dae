"""Scores of decisions about one label: accuracy, and the accuracy of the majority baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxvalues.errors import UserError
from jaxvalues.evaluation.official import as_binary, label_scores
from jaxvalues.evaluation.thresholds import candidates, decide, middle_of_best


@dataclass(frozen=True)
class BinaryScores:
    """The scores of decisions about one label on one split. All figures are in [0, 1].

    `majority_accuracy` is the accuracy of always predicting the more frequent class of the truth. Precision, recall and
    F1 are those of the label `positive`. They are None when the truth has no positive.
    """

    accuracy: float
    majority_accuracy: float
    positive: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    """The number of positives in the truth."""
    arguments: int
    coverage: float = 1.0
    """The share of questions about arguments and labels that have an answer; the others are left out."""

    @property
    def headline(self) -> dict[str, float]:
        """The main figures. Thresholds and the best step are selected by the first."""
        return {"accuracy": self.accuracy, "majority_accuracy": self.majority_accuracy}

    def to_json(self) -> dict[str, Any]:
        """A plain dict for `json.dump`. Its keys are the field names; `coverage` is there where it is below 1."""
        return {key: value for key, value in asdict(self).items() if key != "coverage" or value < 1}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> BinaryScores:
        """The inverse of `to_json`."""
        return cls(**entry)


def score_binary(positive: str, truth: np.ndarray, predicted: np.ndarray) -> BinaryScores:
    """The scores of decisions about the label `positive`. Truth and decisions are [n, 1] of 0 and 1.

    Raises UserError for arrays of different shapes, for other values than 0 and 1, and for arrays without rows.
    """
    truth, predicted = as_binary(truth, "truth", 1), as_binary(predicted, "predicted labels", 1)
    if truth.shape != predicted.shape or not len(truth):
        raise UserError(
            f"the truth has {len(truth)} rows and the prediction {len(predicted)}, expected as many, and at least one"
        )
    share = float(truth.mean())
    label = label_scores((positive,), truth, predicted)[positive]
    accuracy = float((truth == predicted).mean())
    majority = max(share, 1 - share)
    return BinaryScores(
        accuracy, majority, positive, label.precision, label.recall, label.f1, label.support, len(truth)
    )


def tune_accuracy(truth: ArrayLike, logits: ArrayLike) -> float:
    """The threshold of `thresholds.candidates` that maximises accuracy. Truth (0/1) and logits are [n, 1].

    Ties are resolved as in `tune_global`.
    """
    cuts = candidates(logits)
    decisions = np.stack([decide(logits, cut) for cut in cuts])  # [G, n, 1]
    return float(cuts[middle_of_best((decisions == np.asarray(truth)).mean(axis=(1, 2)))])
