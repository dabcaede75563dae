"""The results of small studies whose runs are not trained, for the tests of reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from studies import planned, pretend

from jaxvalues.config import Config
from jaxvalues.report import paper
from jaxvalues.study.analysis import analyse
from jaxvalues.study.budget import Size
from jaxvalues.study.reading import config_of
from jaxvalues.study.results import StudyResults


def results(folder: Path, names: tuple[str, str, str] = ("strong", "weak", "same"), *overrides: str) -> StudyResults:
    """The results of three systems with these names, two trials and three seeds each."""
    methods = ("full", "bitfit", "head")
    systems = {name: {"tuning.method": method} for name, method in zip(names, methods, strict=True)}
    nuisance = {"keys": {"optimizer.learning_rate": [1e-4, 1e-3]}}
    plan = planned(folder, *overrides, scientific={"systems": systems}, nuisance=nuisance)
    for name in plan.systems:
        for trial in plan.trials(name):
            pretend(trial.config, held_out_noise=trial.config.optimizer.learning_rate * 100)
        for run in plan.runs(name, {"optimizer.learning_rate": 1e-4}):
            pretend(run.config)
    sizes = {name: Size(10 ** (place + 2), 20, 3e9) for place, name in enumerate(plan.systems)}
    return analyse(plan, sizes)


def all_runs(folder: Path, *overrides: str, **changes: Any) -> StudyResults:
    """The results of a study without trials whose runs are all finished."""
    plan = planned(folder, *overrides, **changes)
    for name in plan.systems:
        for run in plan.runs(name, {}):
            pretend(run.config)
    return analyse(plan, dict.fromkeys(plan.names, Size(10, 20, 3e9)))


def becomes(monkeypatch: pytest.MonkeyPatch, found: StudyResults, **systems: dict[str, Any]) -> None:
    """Let the report read these configs for the runs of systems, in place of their own."""
    configs = {found.systems[name].runs[0].folder.parent: Config.model_validate(tree) for name, tree in systems.items()}
    monkeypatch.setattr(paper, "config_of", lambda run: configs.get(run.parent) or config_of(run))
