"""Threshold search against brute force, its tie rule, and decisions that do not depend on where numbers come from."""

from __future__ import annotations

import time

import numpy as np
import pytest

from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import UserError
from jaxvalues.evaluation.official import score
from jaxvalues.evaluation.thresholds import GRID, decide, tune_global, tune_per_category

C = len(CATEGORIES)


def noisy(seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Truth and imperfect probabilities, categories differing in frequency and in calibration."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, C)) < rng.uniform(0.03, 0.4, C)).astype(np.int8)
    logits = rng.normal(size=(n, C)) + 1.5 * truth + rng.uniform(-3, 0, C)
    return truth, (1 / (1 + np.exp(-logits))).astype(np.float32)


def official(truth: np.ndarray, probabilities: np.ndarray, thresholds) -> float:
    return score(truth, decide(probabilities, thresholds)).official_f1


@pytest.mark.parametrize("digits", [2, 9], ids=["on the grid", "between"])
@pytest.mark.parametrize("seed", range(5))
def test_global_is_the_best_of_the_grid(seed, digits):
    truth, probabilities = noisy(seed)
    probabilities = probabilities.round(digits)
    scores = [official(truth, probabilities, t) for t in GRID]
    threshold = tune_global(truth, probabilities)
    assert official(truth, probabilities, threshold) == pytest.approx(max(scores), abs=1e-12)
    assert max(scores) > min(scores) + 0.1  # else any threshold would have passed


@pytest.mark.parametrize("seed", range(5))
def test_per_category_is_a_local_optimum_above_the_global_one(seed):
    truth, probabilities = noisy(seed, n=100)
    thresholds = tune_per_category(truth, probabilities)
    best = official(truth, probabilities, thresholds)
    assert best > official(truth, probabilities, tune_global(truth, probabilities))
    for c in range(0, C, 5):
        for t in GRID[::7]:
            moved = thresholds.copy()
            moved[c] = t
            assert official(truth, probabilities, moved) <= best + 1e-9
    np.testing.assert_array_equal(thresholds, tune_per_category(truth, probabilities))


def test_the_middle_of_the_best_plateau_is_taken():
    truth = np.zeros((4, C), np.int8)
    truth[:2] = 1
    probabilities = np.repeat([[0.9], [0.605], [0.305], [0.1]], C, axis=1)  # perfect from .31 to .60
    assert tune_global(truth, probabilities) == 0.45
    # No category can do better, so none leaves the global threshold.
    np.testing.assert_array_equal(tune_per_category(truth, probabilities), np.full(C, 0.45))


def test_of_two_best_plateaus_the_longer_is_taken():
    truth = np.zeros((4, C), np.int8)
    truth[[0, 2]] = 1
    # Up to .10 and from .52 to .90 precision and recall are (1/2, 1) and (1, 1/2); between them both are worse.
    probabilities = np.repeat([[0.905], [0.515], [0.105], [0.11]], C, axis=1)
    scores = {t: official(truth, probabilities, t) for t in (0.05, 0.3, 0.7)}
    assert scores[0.05] == scores[0.7] > scores[0.3]
    assert tune_global(truth, probabilities) == 0.71


def test_a_category_without_positives_keeps_the_global_threshold_and_has_no_say():
    truth, probabilities = noisy(0)
    truth[:, 3] = 0
    thresholds = tune_per_category(truth, probabilities)
    assert thresholds[3] == tune_global(truth, probabilities)
    probabilities[:, 3] = 1 - probabilities[:, 3]
    np.testing.assert_array_equal(thresholds, tune_per_category(truth, probabilities))


def test_probabilities_all_too_low_still_give_a_threshold():
    truth = np.ones((3, C), np.int8)
    assert tune_global(truth, np.zeros((3, C))) == 0.5  # all of the grid is equally bad


def test_a_probability_on_the_threshold_counts_in_any_precision():
    for t in GRID:
        for dtype in (np.float32, np.float64):
            assert decide(np.full((1, C), t, dtype), t).all()
            assert decide(np.full((1, C), t, dtype), np.full(C, t, np.float32)).all()
    assert not decide(np.full((1, C), np.nextafter(np.float32(0.3), np.float32(0))), 0.3).any()


def test_decides_each_category_by_its_own_threshold():
    decisions = decide(np.full((2, C), 0.5), np.linspace(0.025, 0.975, C))
    assert decisions.dtype == np.int8
    np.testing.assert_array_equal(decisions, np.tile(np.arange(C) < C // 2, (2, 1)))


def test_is_fast_on_a_full_split():
    truth, probabilities = noisy(0, n=2000)
    start = time.perf_counter()
    tune_per_category(truth, probabilities)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("tune", [tune_global, tune_per_category])
def test_bad_input_gets_a_sentence(tune):
    truth, probabilities = noisy(0)
    with pytest.raises(UserError, match="no positive label"):
        tune(np.zeros_like(truth), probabilities)
    with pytest.raises(UserError, match="must have the same shape"):
        tune(truth[1:], probabilities)
    probabilities[0, 0] = np.nan
    with pytest.raises(UserError, match="between 0 and 1, not nan"):
        tune(truth, probabilities)
    with pytest.raises(UserError, match=r"threshold must be a number between 0 and 1, not 1\.5"):
        decide(np.full((1, C), 0.5), 1.5)
