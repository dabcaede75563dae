"""Raw, batch-calibrated and tuned decisions about the same logits."""

from __future__ import annotations

import numpy as np
import pytest

from jaxvalues.config import DecisionConfig
from jaxvalues.evaluation.decision import choose_thresholds, side_by_side
from jaxvalues.evaluation.official import score


def biased(seed: int = 0, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits [n, 20] that know something, each category with a bias of its own and all far below 0."""
    random = np.random.default_rng(seed)
    truth = (random.random((n, 20)) < 0.2).astype(np.int8)
    biases = np.linspace(-9, -3, 20)
    return truth, (1.5 * truth + random.standard_normal((n, 20)) + biases).astype(np.float32)


def test_calibration_cures_the_bias_of_each_category() -> None:
    truth, logits = biased()
    f1 = {name: score(truth, one(logits)).official_f1 for name, one in side_by_side(truth, logits).items()}
    assert list(f1) == ["raw", "batch-calibrated", "tuned", "batch-calibrated and tuned"]
    assert f1["raw"] < 0.05
    assert f1["raw"] + 0.3 < f1["batch-calibrated"] < f1["batch-calibrated and tuned"]
    assert f1["tuned"] < f1["batch-calibrated and tuned"]


def test_calibrated_thresholds_are_those_of_logits_without_their_means() -> None:
    truth, logits = biased()
    centred = logits - logits.mean(axis=0)
    calibrated = choose_thresholds(DecisionConfig(threshold="calibrated"), truth, logits)
    tuned = choose_thresholds(DecisionConfig(threshold="tuned"), truth, centred)
    np.testing.assert_array_equal(calibrated(logits), tuned(centred))
    np.testing.assert_allclose(calibrated.thresholds - tuned.thresholds, logits.mean(axis=0), atol=1e-5)
    assert calibrated.how == "one threshold above each category's mean logit tuned on 400 held-out arguments"


def test_raw_and_batch_calibrated_need_no_labels() -> None:
    truth, logits = biased()
    one, other = (side_by_side(labels, logits) for labels in (truth, truth[::-1]))
    for name in ("raw", "batch-calibrated"):
        np.testing.assert_array_equal(one[name].thresholds, other[name].thresholds)
    assert one["tuned"].thresholds[0] != pytest.approx(other["tuned"].thresholds[0])
