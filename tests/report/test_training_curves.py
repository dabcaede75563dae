"""Figures of training: curves of runs, and trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from studies import planned, pretend

from jaxvalues.report.training_curves import learning_curves, tuning_curves
from jaxvalues.study.analysis import analyse
from jaxvalues.study.budget import Size
from jaxvalues.study.results import StudyResults


def test_runs_without_a_common_evaluation_have_no_curve(found: StudyResults) -> None:
    one = found.systems["weak"]
    runs = (replace(one.runs[0], curve=()), *one.runs[1:])
    rest = learning_curves(replace(found, systems={"weak": replace(one, runs=runs)}))
    assert rest.finding == "At the end: weak .200."
    apart = tuple(
        replace(run, curve=tuple({"step": 2 * at + place, "official_f1": 0.1} for at in (1, 2)))
        for place, run in enumerate(one.runs[:2])
    )
    assert learning_curves(replace(found, systems={"weak": replace(one, runs=apart)})) is None


def test_a_range_with_null_has_no_axis(tmp_path: Path) -> None:
    """null is the rate of the method."""
    keys = {"optimizer.learning_rate": [1e-4, 1e-3], "training.epochs": [1, 2]}
    own = {"weak": {"optimizer.learning_rate": [None, 1e-3]}}
    plan = planned(tmp_path, nuisance={"keys": keys, "per_system": own})
    for name in plan.systems:
        for trial in plan.trials(name):
            pretend(trial.config)
    drawn = tuning_curves(analyse(plan, dict.fromkeys(plan.names, Size(10, 20, 3e9))))
    assert "training.epochs" in drawn.svg
    assert "optimizer.learning_rate (log" not in drawn.svg


def test_ranges_that_are_not_fully_tried_are_not_judged(tmp_path: Path) -> None:
    plan = planned(tmp_path, nuisance={"keys": {"optimizer.learning_rate": [1e-4, 1e-3, 1e-2]}})
    for name, tried in {"strong": 2, "weak": 3, "same": 3}.items():
        for trial in plan.trials(name)[:tried]:
            best = trial.config.optimizer.learning_rate == 1e-3
            pretend(trial.config, held_out_noise=0.0 if best else 0.4)
    drawn = tuning_curves(analyse(plan, dict.fromkeys(plan.names, Size(10, 20, 3e9))))
    assert drawn.finding == "Not all trials are finished: strong."
    for trial in plan.trials("strong")[2:]:
        pretend(trial.config, held_out_noise=0.4)
    drawn = tuning_curves(analyse(plan, dict.fromkeys(plan.names, Size(10, 20, 3e9))))
    assert drawn.finding == "Every best value lies inside its range."
