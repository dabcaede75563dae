"""What is missing is left out of scores, thresholds and figures, and said."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jaxvalues.data.arguments import Argument, Split
from jaxvalues.data.task import STANCE, VALUES
from jaxvalues.evaluation.accuracy import BinaryScores
from jaxvalues.evaluation.coverage import (
    for_tuning,
    in_percent,
    mark,
    missing_file,
    note,
    score_answered,
    write_missing,
)
from jaxvalues.evaluation.decision import mean_logits
from jaxvalues.evaluation.measures import measure_of
from jaxvalues.evaluation.official import Scores
from jaxvalues.evaluation.report_table import render_scores
from jaxvalues.evaluation.thresholds import candidates, tune_global


@pytest.fixture
def made_up() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, decisions and missing [40, 20]."""
    draws = np.random.default_rng(0)
    truth, decided = (draws.integers(0, 2, (40, 20)) for _ in range(2))
    return truth, decided, draws.random((40, 20)) < 0.1


def test_each_category_is_scored_on_what_is_there(made_up: tuple[np.ndarray, ...]) -> None:
    truth, decided, missing = made_up
    scores = score_answered(VALUES, truth, decided, missing)
    precision, recall = [], []
    for column, label in enumerate(scores.categories.values()):
        there = ~missing[:, column]
        hits = (truth[there, column] & decided[there, column]).sum()
        precision.append(hits / decided[there, column].sum())
        recall.append(hits / truth[there, column].sum())
        assert (label.precision, label.recall) == pytest.approx((precision[-1], recall[-1]))
    p, r = np.mean(precision), np.mean(recall)
    assert scores.official_f1 == pytest.approx(2 * p * r / (p + r))
    assert scores.coverage == pytest.approx(1 - missing.mean())


def test_nothing_missing_changes_nothing(made_up: tuple[np.ndarray, ...]) -> None:
    truth, decided, missing = made_up
    whole = measure_of(VALUES).score(truth, decided)
    assert score_answered(VALUES, truth, decided, None) == whole
    assert score_answered(VALUES, truth, decided, np.zeros_like(missing)) == whole
    assert whole.coverage == 1
    assert "coverage" not in whole.to_json()


def test_a_guess_in_the_place_of_what_is_missing_changes_nothing(made_up: tuple[np.ndarray, ...]) -> None:
    truth, decided, missing = made_up
    guessed = np.where(missing, 1 - decided, decided)
    assert score_answered(VALUES, truth, guessed, missing) == score_answered(VALUES, truth, decided, missing)


def test_the_stance_is_scored_on_what_is_there() -> None:
    truth, decided = np.array([[1], [0], [1], [1]]), np.array([[1], [1], [0], [1]])
    missing = np.array([[False], [False], [True], [False]])
    scores = score_answered(STANCE, truth, decided, missing)
    assert isinstance(scores, BinaryScores)
    assert (scores.accuracy, scores.arguments, scores.coverage) == (pytest.approx(2 / 3), 3, 0.75)


def test_scores_keep_their_coverage(made_up: tuple[np.ndarray, ...]) -> None:
    scores = score_answered(VALUES, *made_up)
    assert Scores.from_json(scores.to_json()) == scores


def test_thresholds_are_tuned_on_what_is_there(made_up: tuple[np.ndarray, ...]) -> None:
    """The best of all thresholds, by the scores of what is there; what is guessed for the rest does not matter."""
    truth, _, missing = made_up
    split = Split("s", tuple(Argument(str(i), "c", "against", "p") for i in range(40)), truth)
    logits = np.random.default_rng(1).normal(truth - 3.0, 1.0).astype(np.float32)
    tuned = tune_global(*for_tuning(split, logits, missing))
    scores = {cut: score_answered(VALUES, truth, logits >= cut, missing).official_f1 for cut in candidates(logits)}
    assert score_answered(VALUES, truth, logits >= tuned, missing).official_f1 == pytest.approx(
        max(scores.values()), abs=1e-3
    )
    guessed = np.where(missing, -logits, logits)
    assert tune_global(*for_tuning(split, guessed, missing)) == tuned
    np.testing.assert_allclose(mean_logits(for_tuning(split, guessed, missing)[1])[3], logits[~missing[:, 3], 3].mean())


def test_what_is_said(made_up: tuple[np.ndarray, ...]) -> None:
    truth, decided, missing = made_up
    whole, part = (score_answered(VALUES, truth, decided, one) for one in (None, missing))
    assert (mark(whole), mark(part), mark(whole, part)) == ("", "*", "*")
    assert note({"test": whole}) is None
    assert note({"test": whole, "validation": part}).startswith("* INCOMPLETE: validation 88.25 % of")
    assert in_percent(0.99999) == "99.99 %"
    assert in_percent(0.5) == "50.00 %"


def test_tables_flag_it(made_up: tuple[np.ndarray, ...]) -> None:
    screen = Console(file=io.StringIO(), width=120)
    render_scores({"test": score_answered(VALUES, *made_up)}, screen)
    printed = screen.file.getvalue()
    assert f"{score_answered(VALUES, *made_up).official_f1:.3f}"[1:] + "*" in printed
    assert "* INCOMPLETE: test" in printed


def test_the_list_of_what_is_missing(tmp_path: Path) -> None:
    missing = np.zeros((2, 20), bool)
    missing[1, 3] = True
    path = tmp_path / "missing-test.tsv"
    write_missing(path, ("A1", "A2"), VALUES.labels, missing)
    assert path.read_text() == "Argument ID\tCategory\nA2\tHedonism\n"
    assert missing_file(tmp_path / "predictions-test.tsv") == path
    assert missing_file(tmp_path / "predictions-validation.tsv") is None
    assert missing_file(tmp_path / "mine-test.tsv") is None
    write_missing(path, ("A1", "A2"), VALUES.labels, np.zeros((2, 20), bool))
    assert not path.exists()


def test_coverage_is_of_what_was_asked() -> None:
    """A shortlist of one category, without an answer for one argument of three."""
    truth = np.ones((3, 20), np.int8)
    asked = np.zeros((3, 20), bool)
    asked[:, 4] = True
    missing = asked & (np.arange(3) == 1)[:, None]
    assert score_answered(VALUES, truth, truth, missing, asked).coverage == pytest.approx(2 / 3)
    assert score_answered(VALUES, truth, truth, missing).coverage == pytest.approx(59 / 60)
