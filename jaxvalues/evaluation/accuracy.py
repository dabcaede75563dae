"""Accuracy of decisions about one label, beside that of a system that knows nothing but the more frequent answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxvalues.errors import UserError
from jaxvalues.evaluation.official import as_binary, label_scores
from jaxvalues.evaluation.thresholds import GRID, decide, middle_of_best


@dataclass(frozen=True)
class BinaryScores:
    """What is reported about the decisions on one split where there is one label; all figures are in [0, 1].

    `majority_accuracy` is that of always giving the answer that is more frequent in the truth. Precision, recall and F1
    are those of the label `positive`: None where the truth has none of it.
    """

    accuracy: float
    majority_accuracy: float
    positive: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    """Positives in the truth."""
    arguments: int

    @property
    def headline(self) -> dict[str, float]:
        """The figures that stand for all; decisions and the best step are chosen by the first."""
        return {"accuracy": self.accuracy, "majority_accuracy": self.majority_accuracy}

    def to_json(self) -> dict[str, Any]:
        """A plain dict for `json.dump`, its keys named as the fields are."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> BinaryScores:
        """The inverse of `to_json`."""
        return cls(**entry)


def score_binary(positive: str, truth: np.ndarray, predicted: np.ndarray) -> BinaryScores:
    """Score decisions about the label `positive` against the truth; both [n, 1] of 0 and 1.

    Raises UserError if the arrays do not fit each other, hold anything but 0 and 1, or no row.
    """
    truth, predicted = as_binary(truth, "truth", 1), as_binary(predicted, "predicted labels", 1)
    if truth.shape != predicted.shape or not len(truth):
        raise UserError(
            f"the truth has {len(truth)} rows and the prediction {len(predicted)}: they must be the same, and at least "
            "one"
        )
    share = float(truth.mean())
    label = label_scores((positive,), truth, predicted)[positive]
    accuracy = float((truth == predicted).mean())
    majority = max(share, 1 - share)
    return BinaryScores(
        accuracy, majority, positive, label.precision, label.recall, label.f1, label.support, len(truth)
    )


def tune_accuracy(truth: ArrayLike, probabilities: ArrayLike) -> float:
    """The threshold of `GRID` that maximises accuracy; truth (0/1) and probabilities are [n, 1].

    Of several that score the same it is chosen as `tune_global` does.
    """
    decisions = np.stack([decide(probabilities, threshold) for threshold in GRID])  # [G, n, 1]
    return float(GRID[middle_of_best((decisions == np.asarray(truth)).mean(axis=(1, 2)))])
