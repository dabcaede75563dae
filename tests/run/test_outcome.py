"""What a run follows on its held-out part."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from jaxvalues.evaluation.official import score
from jaxvalues.evaluation.thresholds import EXCLUDED, tune_global
from jaxvalues.run.outcome import held_out_metrics
from jaxvalues.training.losses import category_losses, make_loss_hyperparameters


def test_scores_are_about_what_a_shortlist_proposes() -> None:
    split, random = tiny.split(), np.random.default_rng(0)
    logits = (2 * split.labels - 1 + random.normal(size=split.labels.shape)).astype(np.float32)
    proposed = random.random(logits.shape) < 0.5
    hyper = make_loss_hyperparameters(tiny.config().loss, split.labels)
    found = held_out_metrics(tiny.config(), split, logits, hyper, proposed)
    masked = np.where(proposed, logits, EXCLUDED)
    decided = masked >= tune_global(split.labels, masked)
    assert found["official_f1"] == pytest.approx(score(split.labels, decided.astype(np.int8)).official_f1)
    assert found["official_f1"] < held_out_metrics(tiny.config(), split, logits, hyper)["official_f1"]
    of_all = category_losses("bce", logits, split.labels.astype(np.float32), hyper).mean()
    assert found["loss"] == pytest.approx(float(of_all))
