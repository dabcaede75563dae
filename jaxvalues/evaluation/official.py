"""The official score of Touché23-ValueEval, and the figures of each category and group.

The score equals that of the official evaluator of SemEval-2023 Task 4 (Kiesel et al. 2023; version of 2023-08-13), with
one exception: if macro-precision and macro-recall are both 0, the evaluator divides by zero and the score here is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jaxvalues.data.taxonomy import CATEGORIES, GROUPS
from jaxvalues.errors import UserError
from jaxvalues.statistics.f1 import harmonic_mean, macro_scores, precision_recall


@dataclass(frozen=True)
class LabelScore:
    """The scores of one label (a category or a group). They are None when the truth has no positive."""

    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    """The number of positives in the truth."""


@dataclass(frozen=True)
class Scores:
    """The scores of the decisions on one split. All figures are in [0, 1].

    `official_f1` is the task's score: the harmonic mean of `macro_precision` and `macro_recall`. `mean_category_f1` is
    the mean of the categories' F1, which many papers report as "F1". The two differ, so always name the one you report.
    All four are computed over the categories with at least one positive in the truth.

    `groups` are the scores of the four higher-order values (level 3). An argument has a group if it has at least one of
    the group's categories, both in the truth and in the prediction (Kiesel et al. 2022). So a confusion of two
    categories of one group is no error there. The groups do not enter the four figures above.
    """

    official_f1: float
    macro_precision: float
    macro_recall: float
    mean_category_f1: float
    categories: dict[str, LabelScore]
    groups: dict[str, LabelScore]
    coverage: float = 1.0
    """The share of questions about arguments and labels that have an answer; the others are left out."""

    @property
    def headline(self) -> dict[str, float]:
        """The main figures. Thresholds and the best step are selected by the first."""
        return {"official_f1": self.official_f1, "mean_category_f1": self.mean_category_f1}

    def to_json(self) -> dict[str, Any]:
        """A plain dict for `json.dump`. Its keys are the field names; `coverage` is there where it is below 1."""
        return {key: value for key, value in asdict(self).items() if key != "coverage" or value < 1}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Scores:
        """The inverse of `to_json`."""
        labels = {
            level: {name: LabelScore(**label) for name, label in entry[level].items()}
            for level in ("categories", "groups")
        }
        return cls(**{**entry, **labels})


def score(truth: np.ndarray, predicted: np.ndarray) -> Scores:
    """The scores of decisions. Truth and decisions are [n, C] of 0 and 1, with columns in the order of `CATEGORIES`.

    Raises UserError for arrays of different shapes, for other values than 0 and 1, and for a truth without positives.
    """
    truth = as_binary(truth, "truth", len(CATEGORIES))
    predicted = as_binary(predicted, "predicted labels", len(CATEGORIES))
    if truth.shape != predicted.shape:
        raise UserError(
            f"the truth has {len(truth)} rows and the prediction {len(predicted)}, expected the same number"
        )
    if not truth.any():
        raise UserError("the truth has no positive label in any category, expected at least one")
    macro = macro_scores((truth & predicted).sum(axis=0), predicted.sum(axis=0), truth.sum(axis=0))
    return Scores(
        **{figure: float(value) for figure, value in macro._asdict().items()},
        categories=label_scores(CATEGORIES, truth, predicted),
        groups=label_scores(tuple(GROUPS), _to_groups(truth), _to_groups(predicted)),
    )


def label_scores(names: tuple[str, ...], truth: np.ndarray, predicted: np.ndarray) -> dict[str, LabelScore]:
    """{name: score} of all labels. Truth and prediction are [n, C] bool."""
    support = truth.sum(axis=0)
    precision, recall = precision_recall((truth & predicted).sum(axis=0), predicted.sum(axis=0), support)
    columns = zip(names, precision, recall, harmonic_mean(precision, recall), support, strict=True)
    return {
        name: LabelScore(float(p), float(r), float(f1), int(n)) if n else LabelScore(None, None, None, 0)
        for name, p, r, f1, n in columns
    }


def _to_groups(labels: np.ndarray) -> np.ndarray:
    """Labels of the groups [n, 4] from those of the categories [n, C]."""
    members = [[CATEGORIES.index(name) for name in names] for names in GROUPS.values()]
    return np.stack([labels[:, columns].any(axis=1) for columns in members], axis=1)


def as_binary(labels: np.ndarray, what: str, columns: int) -> np.ndarray:
    """Labels [n, columns] as bool. Raises UserError for another shape and for values other than 0 and 1.

    `what` is the name of the labels in these messages.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.shape[1] != columns:
        raise UserError(f"the {what} must have the shape [n, {columns}], not {list(labels.shape)}")
    if not np.isin(labels, (0, 1)).all():
        raise UserError(f"the {what} must contain only 0 and 1")
    return labels.astype(bool)
