"""Threshold search against brute force, its tie rule, and decisions that a constant in the logits does not change."""

from __future__ import annotations

import time

import numpy as np
import pytest

from jaxvalues.config import DecisionConfig
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import UserError
from jaxvalues.evaluation.decision import choose_thresholds
from jaxvalues.evaluation.official import score
from jaxvalues.evaluation.thresholds import (
    CANDIDATES,
    EXCLUDED,
    candidates,
    decide,
    middle_of_best,
    tune_global,
    tune_per_category,
)

C = len(CATEGORIES)


def noisy(seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Truth and imperfect logits, categories differing in frequency and in calibration."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, C)) < rng.uniform(0.03, 0.4, C)).astype(np.int8)
    logits = rng.normal(size=(n, C)) + 1.5 * truth + rng.uniform(-3, 0, C)
    return truth, logits.astype(np.float32)


def official(truth: np.ndarray, logits: np.ndarray, thresholds) -> float:
    return score(truth, decide(logits, thresholds)).official_f1


@pytest.mark.parametrize("seed", range(2))
def test_global_is_the_best_of_all_candidates(seed):
    truth, logits = noisy(seed)
    scores = [official(truth, logits, cut) for cut in candidates(logits)]
    threshold = tune_global(truth, logits)
    assert official(truth, logits, threshold) == pytest.approx(max(scores), abs=1e-12)
    assert max(scores) > min(scores) + 0.1  # else any threshold would have passed
    anything = [official(truth, logits, t) for t in np.linspace(logits.min(), logits.max(), 300)]
    assert max(scores) > max(anything) - 0.005  # 200 candidates miss little of what all 4,000 could give


def test_candidates_lie_between_neighbours_below_and_above() -> None:
    np.testing.assert_array_equal(candidates([[3.0, 1.0], [2.0, 1.0]]), [0.0, 1.0, 1.5, 2.5, 4.0])
    logits = noisy(0)[1]
    cuts = candidates(logits)
    assert cuts.dtype == np.float32
    assert len(cuts) == CANDIDATES
    counts = [np.count_nonzero(logits >= cut) for cut in cuts]
    assert counts[0] == logits.size
    assert counts[-1] == 0
    assert np.abs(np.diff(counts) + logits.size / (CANDIDATES - 1)).max() <= 1  # evenly spaced in rank
    close = np.array([1.0, np.nextafter(np.float32(1), np.float32(2))], np.float32)
    assert [np.count_nonzero(close >= cut) for cut in candidates(close)] == [2, 1, 0]
    huge = np.array([-3e38, 3e38], np.float32)
    assert [np.count_nonzero(huge >= cut) for cut in candidates(huge)] == [2, 1, 0]


@pytest.mark.parametrize("shift", [-7.0, -40.0, 100.0])
@pytest.mark.parametrize("tune", [tune_global, tune_per_category])
def test_a_constant_in_all_logits_changes_no_decision(tune, shift):
    truth, logits = noisy(1)
    logits = logits.round(3)  # so that no two logits become one when the constant takes their last digits
    expected = decide(logits, tune(truth, logits))
    np.testing.assert_array_equal(decide(logits + shift, tune(truth, logits + shift)), expected)
    assert 0.05 < expected.mean() < 0.5


def test_logits_of_a_language_model_far_below_zero_are_decided() -> None:
    truth, logits = noisy(2)
    assert official(truth, logits - 20, tune_global(truth, logits - 20)) > official(truth, logits, -100.0) + 0.1


@pytest.mark.parametrize("seed", range(5))
def test_per_category_is_a_local_optimum_above_the_global_one(seed):
    truth, logits = noisy(seed, n=100)
    thresholds = tune_per_category(truth, logits)
    best = official(truth, logits, thresholds)
    assert best > official(truth, logits, tune_global(truth, logits))
    for c in range(0, C, 5):
        for t in candidates(logits[:, c])[::7]:
            moved = thresholds.copy()
            moved[c] = t
            assert official(truth, logits, moved) <= best + 1e-9
    np.testing.assert_array_equal(thresholds, tune_per_category(truth, logits))


def test_the_middle_of_the_best_plateau_is_taken():
    truth = np.zeros((4, C), np.int8)
    truth[:2] = 1
    logits = np.repeat([[4.0], [2.0], [-1.0], [-3.0]], C, axis=1)  # perfect from above -1 to 2
    threshold = tune_global(truth, logits)
    assert -1 < threshold <= 2
    # No category can do better, so none leaves the global threshold.
    np.testing.assert_array_equal(tune_per_category(truth, logits), np.full(C, threshold))


def test_of_two_best_plateaus_the_longer_is_taken_and_of_two_equal_ones_the_lower():
    assert middle_of_best(np.array([3, 1, 3, 3, 3, 3, 2])) == 3
    assert middle_of_best(np.array([1, 3, 3, 3, 2, 3, 3, 3])) == 2
    truth = np.zeros((4, C), np.int8)
    truth[[0, 2]] = 1
    # All predicted: precision and recall are (1/2, 1). The first alone: (1, 1/2). Between them both are worse.
    logits = np.repeat([[3.0], [1.0], [-2.0], [-1.0]], C, axis=1)
    assert official(truth, logits, -3.0) == official(truth, logits, 2.0) > official(truth, logits, 0.0)
    assert decide(logits, tune_global(truth, logits)).all()


def test_a_category_without_positives_keeps_the_global_threshold_and_has_no_say():
    truth, logits = noisy(0)
    truth[:, 3] = 0
    thresholds = tune_per_category(truth, logits)
    assert thresholds[3] == tune_global(truth, logits)
    logits[:, 3] = -logits[:, 3]
    np.testing.assert_array_equal(thresholds, tune_per_category(truth, logits))


def test_where_everything_is_true_everything_is_predicted():
    truth = np.ones((3, C), np.int8)
    assert decide(np.zeros((3, C)), tune_global(truth, np.zeros((3, C)))).all()


def test_a_value_on_the_threshold_counts_in_any_precision():
    for t in np.arange(1, 100) / 100:
        for dtype in (np.float32, np.float64):
            assert decide(np.full((1, C), t, dtype), t).all()
            assert decide(np.full((1, C), t, dtype), np.full(C, t, np.float32)).all()
    assert not decide(np.full((1, C), np.nextafter(np.float32(0.3), np.float32(0))), 0.3).any()


def test_decides_each_category_by_its_own_threshold():
    decisions = decide(np.full((2, C), 0.5), np.linspace(0.025, 0.975, C))
    assert decisions.dtype == np.int8
    np.testing.assert_array_equal(decisions, np.tile(np.arange(C) < C // 2, (2, 1)))


def test_is_fast_on_a_full_split():
    truth, logits = noisy(0, n=2000)
    start = time.perf_counter()
    tune_per_category(truth, logits)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("tune", [tune_global, tune_per_category])
def test_bad_input_gets_a_sentence(tune):
    truth, logits = noisy(0)
    with pytest.raises(UserError, match="no positive label"):
        tune(np.zeros_like(truth), logits)
    with pytest.raises(UserError, match="must have the same shape"):
        tune(truth[1:], logits)
    logits[0, 0] = np.nan
    with pytest.raises(UserError, match="a logit must be a number, not nan"):
        tune(truth, logits)
    with pytest.raises(UserError, match="a threshold must be a number, not nan"):
        decide(np.full((1, C), 0.5), np.nan)


@pytest.mark.parametrize("threshold", ["tuned", "tuned_per_category", "calibrated"])
@pytest.mark.parametrize("shift", [0.0, -30.0])
def test_what_was_not_asked_about_is_no(threshold: str, shift: float) -> None:
    """A shortlist of 2: neither a threshold nor a mean is taken from the categories that it leaves out."""
    rng = np.random.default_rng(0)
    truth = rng.random((60, 20)) < 0.15
    proposed = np.argsort(np.argsort(-(truth + rng.normal(0, 1, truth.shape)), axis=1), axis=1) < 2
    asked = rng.normal(0, 1.5, truth.shape) + 0.3 * truth + shift
    logits = np.where(proposed, asked, EXCLUDED).astype(np.float32)
    decision = choose_thresholds(DecisionConfig(threshold=threshold), truth, logits)
    decided = decision(logits)
    assert not decided[~proposed].any()
    assert decided[proposed].any()
    assert decision.thresholds.min() > EXCLUDED
    assert len(candidates(logits)) == min(CANDIDATES, proposed.sum() + 1)
    nothing = np.full((60, 20), EXCLUDED, np.float32)
    assert not decision(nothing).any()
    assert not choose_thresholds(DecisionConfig(threshold=threshold), truth, nothing)(nothing).any()
