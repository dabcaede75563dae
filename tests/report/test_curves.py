"""Figures with an axis of the study: shots, and the values of repeated keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

from reports import all_runs

from jaxvalues.report.curves import few_shot, spreads
from jaxvalues.study.results import StudyResults
from jaxvalues.study.screen import figure


def test_shots_are_an_axis(found: StudyResults) -> None:
    assert few_shot(found, "test") is None
    shots = {"strong": 16, "weak": 1, "same": 4}
    systems = {
        name: replace(one, changes={"tuning.method": "full", "data.shots": shots[name]})
        for name, one in found.systems.items()
    }
    drawn = few_shot(replace(found, systems=systems), "test")
    low, high = (figure(found.systems[name].intervals["test"].estimate) for name in ("weak", "strong"))
    assert drawn.finding == f"From the fewest to the most shots: method full from {low} to {high}."
    assert [row[:2] for row in drawn.table.rows] == [("method full", shots) for shots in ("1", "4", "16")]


def test_shots_of_other_networks_are_other_lines(found: StudyResults) -> None:
    bases = {"strong": "a.yaml", "weak": "b.yaml", "same": "b.yaml"}
    shots = {"strong": 16, "weak": 1, "same": 4}
    systems = {name: replace(one, changes={"data": {"shots": shots[name]}}) for name, one in found.systems.items()}
    given = {name: {"base": bases[name], "data": {"shots": shots[name]}} for name in systems}
    scientific = found.study.scientific.model_copy(update={"systems": given})
    study = found.study.model_copy(update={"scientific": scientific})
    drawn = few_shot(replace(found, study=study, systems=systems), "test")
    assert [row[:2] for row in drawn.table.rows] == [("base b.yaml", shots) for shots in ("1", "4")]


def test_the_spread_over_another_repeated_key(found: StudyResults) -> None:
    assert spreads(found, "test") == []
    study = found.study.model_copy(update={"repeated": {"seed": (0, 1), "tuning.init": ("a", "b", "c")}})
    one = found.systems["weak"]
    runs = tuple(
        replace(run, repeated={"seed": 0, "tuning.init": init}) for run, init in zip(one.runs, "abc", strict=True)
    )
    _, drawn = spreads(replace(found, study=study, systems={"weak": replace(one, runs=runs)}), "test")
    f1 = [run.scores["test"].official_f1 for run in runs]
    assert [row[:3] for row in drawn.table.rows] == [
        ("weak", f"init {init}", figure(value)) for init, value in zip("abc", f1, strict=True)
    ]
    assert drawn.finding == f"Standard deviation of the means over tuning.init: weak {figure(stdev(f1))}."


def test_every_repeated_key_has_a_spread(tmp_path: Path) -> None:
    repeated = {"seed": [0], "init_seed": [0, 1, 2], "formulation.template": ["cls", "joined"]}
    found = all_runs(
        tmp_path,
        scientific={"systems": {"a": {"tuning.method": "full"}, "b": {"tuning.method": "head"}}},
        repeated=repeated,
    )
    inits, templates = spreads(found, "test")
    assert (inits.name, templates.name) == ("spread-init_seed-test", "spread-formulation-template-test")
    joined = [
        run.scores["test"].official_f1
        for run in found.systems["a"].runs
        if run.repeated["formulation.template"] == "joined"
    ]
    assert ("a", "template joined", figure(fmean(joined)), "3") in templates.table.rows
    assert [row[1] for row in inits.table.rows[:3]] == ["init_seed 0", "init_seed 1", "init_seed 2"]
