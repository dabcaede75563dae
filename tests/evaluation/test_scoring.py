"""Prediction files: written and read back exactly, scored by ID, and refused with one sentence when they are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.decision import Decision, read_decision, sigmoid
from jaxvalues.evaluation.official import score
from jaxvalues.evaluation.predictions import Logits, Predictions, read_logits, read_predictions, write_logits
from jaxvalues.evaluation.scoring import score_files
from jaxvalues.evaluation.thresholds import tune_per_category

C = len(CATEGORIES)
HEADER = "\t".join(("Argument ID", *CATEGORIES))


def table(path: Path, rows: dict[str, list] | list[tuple[str, list]]) -> Path:
    rows = rows.items() if isinstance(rows, dict) else rows
    lines = [HEADER, *("\t".join((i, *map(str, cells))) for i, cells in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def ones(*columns: int) -> list[int]:
    return [int(c in columns) for c in range(C)]


@pytest.fixture
def truth(tmp_path) -> Path:
    return table(tmp_path / "labels-test.tsv", {"A1": ones(0, 1), "A2": ones(1), "A3": ones(2)})


def random_predictions(n: int = 300, seed: int = 0) -> Predictions:
    """Probabilities of every magnitude, with values that sit on thresholds and at the ends of the range."""
    rng = np.random.default_rng(seed)
    probabilities = (rng.random((n, C)) * 10.0 ** -rng.integers(0, 12, (n, C))).astype(np.float32)
    probabilities[0, :6] = 0, 1, 0.3, 1e-45, np.nextafter(np.float32(1), np.float32(0)), 0.1
    return Predictions(tuple(f"A{i:05d}" for i in range(n)), probabilities)


def test_probabilities_come_back_bit_for_bit(tmp_path):
    predictions = random_predictions()
    predictions.write_probabilities(tmp_path / "p.tsv")
    back = read_predictions(tmp_path / "p.tsv")
    assert back.ids == predictions.ids
    np.testing.assert_array_equal(back.probabilities.view(np.uint32), predictions.probabilities.view(np.uint32))
    assert not back.decided


def test_logits_come_back_bit_for_bit_and_must_be_finite(tmp_path):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(300, C)) * 10.0 ** rng.integers(-12, 30, (300, C))).astype(np.float32)
    ids = tuple(f"A{i:05d}" for i in range(300))
    write_logits(tmp_path / "logits-test.tsv", Logits(ids, values))
    back = read_logits(tmp_path / "logits-test.tsv")
    assert back.ids == ids
    np.testing.assert_array_equal(back.values.view(np.uint32), values.view(np.uint32))
    for value in (np.nan, np.inf, -np.inf):
        values[1, 2] = value
        with pytest.raises(UserError, match=f"the logit of {CATEGORIES[2]} for argument A00001 is {value}"):
            write_logits(tmp_path / "logits-test.tsv", Logits(ids, values))
    for cell in ("nan", "inf", "1e39", "x"):
        run = table(tmp_path / "logits-wrong.tsv", {"A1": [*ones()[:-1], cell]})
        with pytest.raises(UserError, match=f"line 2: {CATEGORIES[-1]} is '{cell}', but a finite number"):
            read_logits(run)


def test_probabilities_of_an_earlier_version_are_read_as_logits(tmp_path):
    predictions = random_predictions()
    predictions.write_probabilities(tmp_path / "probabilities-test.tsv")
    read = read_logits(tmp_path / "logits-test.tsv")
    assert np.isfinite(read.values).all()
    np.testing.assert_allclose(sigmoid(read.values), predictions.probabilities, rtol=1e-5, atol=1e-7)


def test_thresholds_and_logits_give_the_run_again(tmp_path):
    logits = np.random.default_rng(0).normal(-12, 4, size=(300, C)).astype(np.float32)
    predictions = Predictions(tuple(f"A{i:05d}" for i in range(300)), sigmoid(logits))
    labels = (np.random.default_rng(1).normal(size=(300, C)) * 4 < logits + 8).astype(np.int8)
    decision = Decision(tune_per_category(labels, logits), "tuned on validation")
    decisions = decision(logits)
    write_logits(tmp_path / "logits-test.tsv", Logits(predictions.ids, logits))
    predictions.write_probabilities(tmp_path / "probabilities-test.tsv")
    predictions.write_run(tmp_path / "predictions-test.tsv", decisions)
    decision.write(tmp_path)
    table(tmp_path / "labels.tsv", dict(zip(predictions.ids, labels.tolist(), strict=True)))

    again = read_decision(tmp_path)
    assert again.how == "tuned on validation"
    np.testing.assert_array_equal(again.thresholds, decision.thresholds)
    read = read_logits(tmp_path / "logits-test.tsv")
    np.testing.assert_array_equal(again(read.values), decisions)
    np.testing.assert_array_equal(read_predictions(tmp_path / "predictions-test.tsv").probabilities, decisions)
    run, probabilities = (
        score_files(tmp_path / "labels.tsv", tmp_path / f"{name}-test.tsv") for name in ("predictions", "probabilities")
    )
    assert run.scores == probabilities.scores == score(labels, decisions)
    assert run.notes == ()
    (note,) = probabilities.notes
    assert "decided at probabilities" in note
    assert "(logits -" in note
    assert "tuned on validation" in note


def test_thresholds_of_an_earlier_version_are_probabilities(tmp_path):
    content = {"chosen": "one threshold", "thresholds": dict.fromkeys(CATEGORIES, 0.25)}
    (tmp_path / "thresholds.json").write_text(json.dumps(content))
    decision = read_decision(tmp_path)
    np.testing.assert_allclose(decision.probabilities, 0.25)
    assert decision.span == "probability 0.25 (logit -1.10)"
    decision.write(tmp_path)
    np.testing.assert_array_equal(read_decision(tmp_path).thresholds, decision.thresholds)


def test_a_span_shows_small_probabilities_too():
    assert Decision(np.array([-9.0, -2.0]), "").span == "probabilities 0.00012 to 0.12 (logits -9.00 to -2.00)"


def test_the_run_format_is_the_official_one(tmp_path):
    predictions = Predictions(("A1", "A2"), np.full((2, C), 0.5))
    predictions.write_run(tmp_path / "run.tsv", np.array([ones(0, 19), ones()]))
    text = (tmp_path / "run.tsv").read_text(encoding="utf-8")
    assert text == f"{HEADER}\nA1\t1{18 * chr(9)}".replace(18 * "\t", 18 * "\t0") + "\t1\nA2" + 20 * "\t0" + "\n"


def test_rows_are_matched_by_id_and_missing_ones_count_as_negative(tmp_path, truth):
    run = table(tmp_path / "run.tsv", {"A3": ones(2), "A1": ones(0)})
    result = score_files(truth, run)
    assert result.scores == score(np.array([ones(0, 1), ones(1), ones(2)]), np.array([ones(0), ones(), ones(2)]))
    assert result.missing == 1
    assert result.notes == (f"{run} has no row for 1 of 3 arguments; these count as having no category.",)


def test_a_threshold_decides_probabilities(tmp_path, truth):
    rows = {i: [0.3 if label else 0.2999 for label in labels] for i, labels in (("A1", ones(0, 1)), ("A2", ones(1)))}
    run = table(tmp_path / "run.tsv", {**rows, "A3": [0.1] * C})
    result = score_files(truth, run, threshold=0.3)
    assert result.scores == score(np.array([ones(0, 1), ones(1), ones(2)]), np.array([ones(0, 1), ones(1), ones()]))
    assert "decided at 0.3" in result.notes[0]
    # Asked for, it goes before the thresholds in the folder; not asked for, those are used.
    Decision(np.full(C, np.log(0.05 / 0.95)), "fixed").write(tmp_path)
    assert score_files(truth, run, threshold=0.3) == result
    assert score_files(truth, run).scores.macro_recall == 1
    assert "decided at probability 0.05 (logit -2.94) (" in score_files(truth, run).notes[0]


def test_a_threshold_changes_nothing_about_decisions_and_says_so(tmp_path, truth):
    run = table(tmp_path / "run.tsv", {"A1": ones(0), "A2": ones(1), "A3": ones()})
    result = score_files(truth, run, threshold=0.9)
    assert result.scores == score_files(truth, run).scores
    assert "changes nothing" in result.notes[0]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ({"A1": [0.5] * C}, "the file has probabilities: give --threshold"),
        (
            {f"B{i}": ones() for i in range(5)},
            r"5 of its 5 argument IDs are not in .*labels-test.tsv: B0, B1, B2 and 2 more",
        ),
        ({"A1": ones(), "A9": ones()}, r"1 of its 2 argument IDs are not in .*: A9$"),
        ([("A1", ones()), ("A1", ones())], r"run\.tsv, line 3: .*A1"),
        ({"A1": ones(), "A2": [*ones()[:7], 2, *ones()[8:]]}, "line 3: Face is '2', but a number between 0 and 1"),
        ({"A1": ["yes", *ones()[1:]]}, "line 2: Self-direction: thought is 'yes'"),
        ({"A1": ["1_0e-1", *ones()[1:]]}, "line 2: Self-direction: thought is '1_0e-1'"),
        ({"A1": ["nan", *ones()[1:]]}, "line 2: Self-direction: thought is 'nan'"),
        ({"A1": ones()[1:]}, r"run\.tsv, line 2"),
    ],
)
def test_a_wrong_run_gets_one_sentence(tmp_path, truth, rows, sentence):
    run = table(tmp_path / "run.tsv", rows)
    with pytest.raises(UserError, match=sentence) as caught:
        score_files(truth, run)
    assert "\n" not in str(caught.value)


def test_a_wrong_header_gets_one_sentence(tmp_path, truth):
    run = table(tmp_path / "run.tsv", {"A1": ones()})
    run.write_text(run.read_text(encoding="utf-8").replace("Hedonism", "Hedonisms"), encoding="utf-8")
    with pytest.raises(UserError, match=r"run\.tsv, line 1.*Hedonism"):
        score_files(truth, run)


@pytest.mark.parametrize("cell", ["1_0e-1", "٠.٥", " 0.5", "nan", "1e999", ""])
def test_probabilities_of_a_run_are_plain_numbers(tmp_path, cell):
    run = table(tmp_path / "run.tsv", {"A1": ones(), "A2": [cell, *ones()[1:]]})
    with pytest.raises(UserError, match=r"run\.tsv, line 3: Self-direction: thought is .* between 0 and 1"):
        read_predictions(run)


def test_ensembles_and_runs_read_their_own_files_strictly(tmp_path):
    run = table(tmp_path / "run.tsv", {"A1": ones()})
    lines = run.read_text(encoding="utf-8").splitlines()
    run.write_text("".join("\t".join(line.split("\t")[:-1]) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(UserError, match="line 1: the header has 20 columns"):
        read_predictions(run)


@pytest.mark.parametrize("threshold", [0, -0.1, 1.1, float("nan")])
def test_a_threshold_outside_the_range_is_a_usage_error(truth, threshold):
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        score_files(truth, truth, threshold)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "thresholds.json: is not valid JSON"),
        (json.dumps({"chosen": "fixed", "thresholds": {"Face": 0.3}}), "Self-direction: thought"),
        (json.dumps({"chosen": "fixed", "thresholds": dict.fromkeys(CATEGORIES, "high")}), "one number per category"),
        (json.dumps({"chosen": "fixed", "thresholds": dict.fromkeys(CATEGORIES, 1.5)}), "above 0 and below 1"),
        (json.dumps({"chosen": "fixed", "thresholds": dict.fromkeys(CATEGORIES, "0.5")}), "'0.5' is not a number"),
        (json.dumps({"chosen": "fixed", "thresholds": dict.fromkeys(CATEGORIES, True)}), "True is not a number"),
        (json.dumps({"thresholds": dict.fromkeys(CATEGORIES, 0.5)}), "chosen"),
        (json.dumps([0.5] * C), "holds a list, expected an object: the thresholds of the run"),
        (None, "no such file"),
    ],
)
def test_wrong_thresholds_get_one_sentence(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "thresholds.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=sentence):
        read_decision(tmp_path)


@pytest.mark.parametrize(
    ("probabilities", "sentence"),
    [
        (np.full((1, C), 0.5), r"shape \[1, 20\], but \[2, 20\]"),
        (np.full((2, C), np.nan), "Self-direction: thought for argument A1 is nan"),
        (np.eye(2, C, 3) * 1.5, "Hedonism for argument A1 is 1.5"),
    ],
)
def test_impossible_predictions_are_refused(probabilities, sentence):
    with pytest.raises(UserError, match=sentence):
        Predictions(("A1", "A2"), probabilities)


@pytest.mark.parametrize("decisions", [np.ones((1, C)), np.full((2, C), 0.5)])
def test_only_decisions_are_written_as_a_run(tmp_path, decisions):
    with pytest.raises(UserError, match="must be 0 or 1"):
        Predictions(("A1", "A2"), np.full((2, C), 0.5)).write_run(tmp_path / "run.tsv", decisions)
    assert not list(tmp_path.iterdir())
