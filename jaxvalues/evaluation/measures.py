"""The measure of each task: the official score for values, accuracy for the stance.

The best step and the tuned thresholds are selected by the first figure of the scores' `headline`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxvalues.data.task import STANCE, VALUES, Task
from jaxvalues.evaluation.accuracy import BinaryScores, score_binary, tune_accuracy
from jaxvalues.evaluation.official import Scores, score
from jaxvalues.evaluation.thresholds import tune_global

TaskScores = Scores | BinaryScores


class Measure(NamedTuple):
    """The functions that score decisions of a task and tune thresholds for it."""

    score: Callable[[np.ndarray, np.ndarray], TaskScores]  # (truth, decisions), both [n, C]
    from_json: Callable[[Mapping[str, Any]], TaskScores]
    tune: Callable[[np.ndarray, np.ndarray], float]  # (truth, logits) to one threshold
    selection_metric: str  # the first figure of the scores' `headline`


def measure_of(task: Task) -> Measure:
    """The measure of a task."""
    return _MEASURES[task.name]


_MEASURES = {
    VALUES.name: Measure(score, Scores.from_json, tune_global, "official_f1"),
    STANCE.name: Measure(partial(score_binary, STANCE.labels[0]), BinaryScores.from_json, tune_accuracy, "accuracy"),
}
