"""The official score against figures worked out by hand, the rules in plain Python, and the real baselines."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from jaxvalues.data.taxonomy import CATEGORIES, GROUPS
from jaxvalues.errors import UserError
from jaxvalues.evaluation.official import LabelScore, Scores, score
from jaxvalues.statistics.f1 import harmonic_mean

DATA = Path(os.environ.get("JAXVALUES_DATA", Path(__file__).parents[2] / "../shared/valueeval23"))
C = len(CATEGORIES)


def matrix(*rows: set[str]) -> np.ndarray:
    """Labels [n, C] from the names of each row's categories."""
    return np.array([[name in row for name in CATEGORIES] for row in rows], np.int8)


def reference(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float, float, float]:
    """Official F1, macro-precision, macro-recall, mean category F1: the rules of the task, one cell at a time."""
    precisions, recalls, f1s = [], [], []
    for c in range(truth.shape[1]):
        tp = fp = fn = 0
        for t, p in zip(truth[:, c], predicted[:, c], strict=True):
            tp += t == 1 and p == 1
            fp += t == 0 and p == 1
            fn += t == 1 and p == 0
        if tp + fn == 0:
            continue
        precisions.append(tp / (tp + fp) if tp + fp else 0.0)
        recalls.append(tp / (tp + fn))
        total = precisions[-1] + recalls[-1]
        f1s.append(2 * precisions[-1] * recalls[-1] / total if total else 0.0)
    p, r = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 2 * p * r / (p + r) if p + r else 0.0, p, r, sum(f1s) / len(f1s)


def four(scores: Scores) -> tuple[float, float, float, float]:
    return scores.official_f1, scores.macro_precision, scores.macro_recall, scores.mean_category_f1


def test_by_hand():
    truth = matrix({"Face"}, {"Face", "Humility"}, {"Humility"}, {"Humility"})
    predicted = matrix({"Face", "Tradition"}, {"Humility"}, {"Face"}, {"Humility"})
    scores = score(truth, predicted)
    # Face: one of its two predictions is right, one of two found. Humility: both right, two of three found.
    # Tradition is predicted but stands nowhere in the truth: it is skipped, false positive and all.
    assert scores.categories["Face"] == LabelScore(1 / 2, 1 / 2, 1 / 2, 2)
    assert scores.categories["Humility"] == LabelScore(1.0, 2 / 3, pytest.approx(4 / 5), 3)
    assert scores.categories["Tradition"] == LabelScore(None, None, None, 0)
    p, r = 3 / 4, 7 / 12
    assert four(scores) == pytest.approx((2 * p * r / (p + r), p, r, 13 / 20))
    # Face and Humility both belong to conservation, so every argument has it and every prediction says so.
    assert scores.groups["Conservation"] == LabelScore(1.0, 1.0, 1.0, 4)
    assert scores.groups["Self-enhancement"] == LabelScore(1 / 2, 1 / 2, 1 / 2, 2)
    assert scores.groups["Self-transcendence"] == scores.categories["Humility"]
    assert scores.groups["Openness to change"] == LabelScore(None, None, None, 0)


def test_is_the_harmonic_mean_of_the_means_and_not_the_mean_of_the_harmonic_means():
    truth = matrix({"Face"}, {"Tradition"}, {"Tradition"})
    predicted = matrix({"Face", "Tradition"}, {"Face"}, {"Tradition"})
    scores = score(truth, predicted)
    assert scores.macro_precision == pytest.approx(1 / 2)
    assert scores.macro_recall == pytest.approx(3 / 4)
    assert scores.official_f1 == pytest.approx(3 / 5)
    assert scores.mean_category_f1 == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_nothing_predicted_scores_zero():
    truth = matrix({"Face"}, {"Hedonism"})
    assert four(score(truth, np.zeros_like(truth))) == (0, 0, 0, 0)


def test_perfect_scores_one():
    truth = matrix({"Face", "Stimulation"}, {"Hedonism"})
    assert four(score(truth, truth)) == (1, 1, 1, 1)


@pytest.mark.parametrize("seed", range(20))
def test_random_labels_agree_with_the_slow_reference(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    truth, predicted = ((rng.random((n, C)) < rng.random(C)).astype(np.int8) for _ in range(2))
    truth[:, rng.random(C) < 0.3] = 0  # some categories nobody has
    truth[0, seed % C] = 1
    scores = score(truth, predicted)
    assert four(scores) == pytest.approx(reference(truth, predicted), abs=1e-12)
    for name, members in GROUPS.items():
        columns = [CATEGORIES.index(member) for member in members]
        group = [m[:, columns].max(axis=1, keepdims=True) for m in (truth, predicted)]
        if not group[0].any():
            assert scores.groups[name] == LabelScore(None, None, None, 0)
        else:
            figures = scores.groups[name]
            expected = reference(*group)
            assert (figures.f1, figures.precision, figures.recall) == pytest.approx(expected[:3], abs=1e-12)


def test_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth, predicted = ((rng.random((50, C)) < 0.3).astype(int) for _ in range(2))
    p, r, f1, support = metrics.precision_recall_fscore_support(truth, predicted, zero_division=0)
    scores = score(truth, predicted)
    assert [label.precision for label in scores.categories.values()] == pytest.approx(p)
    assert [label.recall for label in scores.categories.values()] == pytest.approx(r)
    assert [label.f1 for label in scores.categories.values()] == pytest.approx(f1)
    assert [label.support for label in scores.categories.values()] == support.tolist()


def test_json_has_the_agreed_keys_and_comes_back():
    truth = matrix({"Face"}, {"Hedonism"})
    scores = score(truth, matrix({"Face"}, {"Face"}))
    text = json.dumps(scores.to_json(), allow_nan=False)
    entry = json.loads(text)
    assert list(entry) == [
        "official_f1", "macro_precision", "macro_recall", "mean_category_f1", "categories", "groups"
    ]  # fmt: skip
    assert list(entry["categories"]) == list(CATEGORIES)
    assert list(entry["groups"]) == list(GROUPS)
    assert entry["categories"]["Face"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}
    assert entry["categories"]["Tradition"] == {"precision": None, "recall": None, "f1": None, "support": 0}
    assert Scores.from_json(entry) == scores


@pytest.mark.parametrize(
    ("truth", "predicted", "sentence"),
    [
        (np.ones((3, C)), np.ones((2, C)), "3 rows and the prediction 2"),
        (np.ones((3, 4)), np.ones((3, 4)), r"shape \[n, 20\], not \[3, 4\]"),
        (np.ones((3, C)), np.full((3, C), 0.7), "predicted labels must contain only 0 and 1"),
        (np.full((3, C), np.nan), np.ones((3, C)), "truth must contain only 0 and 1"),
        (np.zeros((3, C)), np.ones((3, C)), "no positive label"),
        (np.zeros((0, C)), np.zeros((0, C)), "no positive label"),
    ],
)
def test_bad_input_gets_a_sentence(truth, predicted, sentence):
    with pytest.raises(UserError, match=sentence):
        score(truth, predicted)


def test_harmonic_mean_of_zeros_is_zero():
    assert harmonic_mean(np.array([0.0, 0.0, 0.5]), np.array([0.0, 1.0, 1.0])) == pytest.approx([0, 0, 2 / 3])


@pytest.mark.parametrize(
    ("split", "official", "mean"), [("test", 0.2629, 0.2484), ("validation", 0.2872, 0.2718)]
)  # fmt: skip
def test_all_ones_baseline_on_the_real_data(split, official, mean):
    path = DATA / f"labels-{split}.tsv"
    if not path.is_file():
        pytest.skip(f"{path} is not there: set JAXVALUES_DATA to a folder with the Touché23-ValueEval files")
    with open(path, encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    truth = np.array([[int(row[name]) for name in CATEGORIES] for row in rows])
    scores = score(truth, np.ones_like(truth))
    assert scores.official_f1 == pytest.approx(official, abs=5e-5)
    assert scores.mean_category_f1 == pytest.approx(mean, abs=5e-5)
