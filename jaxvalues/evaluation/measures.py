"""The measure of each task: the official score for values, accuracy for the stance.

The best step and the tuned thresholds are selected by the first figure of the scores' `headline`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvalues.config.reading import entry
from jaxvalues.data.task import STANCE, VALUES, Task
from jaxvalues.errors import UserError
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


def read_scores(task: Task, content: Mapping[str, Any], path: str | Path) -> tuple[TaskScores, dict[str, TaskScores]]:
    """The scores of a scores.json, whose content this is: (of the held-out part, {reported split: scores}).

    Raises UserError with file and key for what a run does not write.
    """
    read = measure_of(task).from_json
    entries = {"held_out": entry(content, "held_out", dict, path)}
    entries |= {f"splits.{name}": one for name, one in entry(content, "splits", dict, path).items()}
    scores = {}
    for key, one in entries.items():
        try:
            if not _holds_figures(one):
                raise ValueError
            scores[key] = read(one)
        except (TypeError, ValueError, KeyError, AttributeError):
            raise UserError(f"{path}: `{key}` does not hold the scores of a run of the task {task.name}") from None
    return scores.pop("held_out"), {key.removeprefix("splits."): one for key, one in scores.items()}


def _holds_figures(tree: Any) -> bool:
    """Whether all leaves are figures or words, as in scores."""
    if isinstance(tree, dict):
        return all(_holds_figures(value) for key, value in tree.items() if key != "positive")
    return tree is None or (isinstance(tree, int | float) and not isinstance(tree, bool))


_MEASURES = {
    VALUES.name: Measure(score, Scores.from_json, tune_global, "official_f1"),
    STANCE.name: Measure(partial(score_binary, STANCE.labels[0]), BinaryScores.from_json, tune_accuracy, "accuracy"),
}
