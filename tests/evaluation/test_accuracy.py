"""The scores of one label: by hand, against the majority, and how a threshold is chosen for them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from jaxvalues.data.task import STANCE, VALUES
from jaxvalues.errors import UserError
from jaxvalues.evaluation.accuracy import BinaryScores, score_binary, tune_accuracy
from jaxvalues.evaluation.measures import measure_of
from jaxvalues.evaluation.official import score
from jaxvalues.evaluation.report_table import render_scores
from jaxvalues.evaluation.thresholds import decide, tune_global

TRUTH = np.array([[1], [1], [1], [0], [0]], np.int8)
PREDICTED = np.array([[1], [1], [0], [1], [0]], np.int8)


def test_scores_by_hand() -> None:
    scores = score_binary("in favor of", TRUTH, PREDICTED)
    third = pytest.approx(2 / 3)
    assert scores == BinaryScores(0.6, 0.6, "in favor of", third, third, third, support=3, arguments=5)
    assert list(scores.headline) == ["accuracy", "majority_accuracy"]
    assert BinaryScores.from_json(json.loads(json.dumps(scores.to_json()))) == scores


def test_the_majority_may_be_the_absence() -> None:
    scores = score_binary("x", TRUTH[2:], PREDICTED[2:])
    assert (scores.accuracy, scores.majority_accuracy) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    none = score_binary("x", TRUTH[3:], PREDICTED[3:])  # no positive to find, and accuracy all the same
    assert (none.accuracy, none.majority_accuracy, none.precision, none.recall, none.f1) == (0.5, 1, None, None, None)


@pytest.mark.parametrize(
    ("truth", "predicted", "said"),
    [
        (TRUTH, PREDICTED[1:], "5 rows and the prediction 4"),
        (TRUTH[:0], PREDICTED[:0], "at least one"),
        (np.zeros((5, 2)), PREDICTED, "shape [n, 1], not [5, 2]"),
        (TRUTH * 2, PREDICTED, "only 0 and 1"),
    ],
)
def test_what_cannot_be_scored_is_said(truth: np.ndarray, predicted: np.ndarray, said: str) -> None:
    with pytest.raises(UserError) as error:
        score_binary("x", truth, predicted)
    assert said in str(error.value)


def test_the_tuned_threshold_is_in_the_middle_of_the_best() -> None:
    logits = np.array([[2.0], [1.5], [0.5], [-0.5], [-2.0]])
    assert tune_accuracy(TRUTH, logits) == 0.0  # the one between the positives and the negatives
    assert tune_accuracy(TRUTH, logits - 64) == -64.0
    logits[2] = -1.0  # now two neighbouring thresholds are wrong once each: the lower is taken
    threshold = tune_accuracy(TRUTH, logits)
    assert (decide(logits, threshold) == TRUTH).mean() == 0.8
    assert threshold == -1.5


def test_each_task_has_its_measure() -> None:
    assert measure_of(STANCE).score(TRUTH, PREDICTED) == score_binary("in favor of", TRUTH, PREDICTED)
    values = np.tile(TRUTH, 20), np.tile(PREDICTED, 20)
    assert measure_of(VALUES).score(*values) == score(*values)
    assert (measure_of(VALUES).tune, measure_of(STANCE).tune) == (tune_global, tune_accuracy)
    for task, args in ((VALUES, values), (STANCE, (TRUTH, PREDICTED))):
        measure = measure_of(task)
        scores = measure.score(*args)
        assert next(iter(scores.headline)) == measure.selection_metric
        assert measure.from_json(scores.to_json()) == scores


def test_the_table_names_accuracy_and_majority() -> None:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    render_scores({"test": score_binary("in favor of", TRUTH, PREDICTED)}, console)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["test", ".600", ".600", "in", "favor", "of", ".667", ".667", ".667", "3", "5"] in lines
    assert "majority" in lines[0]
    assert "accuracy" in lines[1]
