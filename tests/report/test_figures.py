"""The figures of a report: what they say, and that nothing lies over anything else."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.projections.polar import PolarAxes
from PIL import Image
from reports import results

from jaxvalues.report import write_report
from jaxvalues.report.drawing import Picture
from jaxvalues.report.figures import forest, frontier, pictures, radar, scores, time_frontier
from jaxvalues.study.results import RunResult, StudyResults
from jaxvalues.study.screen import figure

SVG = "{http://www.w3.org/2000/svg}"
LONG = ("RoBERTa-large, contrastive pre-training", "RoBERTa-large, multiple heads", "DeBERTa-large, single head")


def test_what_runs_took_is_a_figure_where_it_is_known(found: StudyResults) -> None:
    assert time_frontier(found, "test") is None
    timed = {
        name: replace(one, runs=tuple(replace(run, seconds=10.0 * (place + 1)) for run in one.runs))
        for place, (name, one) in enumerate(found.systems.items())
    }
    drawn = time_frontier(replace(found, systems=timed), "test")
    best = max(found.systems, key=lambda name: found.systems[name].intervals["test"].estimate)
    if best == "strong":
        said = "strong has the highest official F1 and the fewest seconds."
    else:
        said = (
            "each of these has a higher official F1 than all systems with fewer seconds (dashed line): strong and same."
        )
    assert drawn.finding == f"By the estimates, {said}"


def test_systems_that_train_nothing_are_named_beside_the_frontier(found: StudyResults) -> None:
    def drawn(**sizes: int) -> str:
        systems = {name: replace(found.systems[name], trained_parameters=size) for name, size in sizes.items()}
        return frontier(replace(found, systems=systems, contrasts=()), "test").finding

    best = max(found.systems, key=lambda name: found.systems[name].intervals["test"].estimate)
    others = [name for name in found.systems if name != best]
    said = drawn(**{best: 0, others[0]: 10, others[1]: 100})
    estimate = figure(found.systems[best].intervals["test"].estimate)
    assert said == (
        "By the estimates, no system with more than 0 trained parameters has a higher official F1. Not drawn, with 0 "
        f"trained parameters: {best}; the best of these is {best}, {estimate}."
    )
    assert "Not drawn" not in drawn(**{best: 1, others[0]: 10, others[1]: 100})


def test_the_fewest_parameters_are_those_of_all_systems(found: StudyResults) -> None:
    def drawn(**sizes: int) -> str:
        systems = {name: replace(found.systems[name], trained_parameters=size) for name, size in sizes.items()}
        return frontier(replace(found, systems=systems, contrasts=()), "test").finding

    best, *others = sorted(found.systems, key=lambda name: -found.systems[name].intervals["test"].estimate)
    sizes = dict.fromkeys(others, 10)
    assert drawn(**{**sizes, best: 5}).startswith(
        f"By the estimates, {best} has the highest official F1 and the fewest"
    )
    said = f"By the estimates, {best} has the highest official F1. Not drawn, with 0 trained parameters: {others[-1]};"
    assert drawn(**{**sizes, best: 5, others[-1]: 0}).startswith(said)


def test_a_category_without_positives_is_not_drawn(found: StudyResults, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[float]] = []
    monkeypatch.setattr(PolarAxes, "plot", lambda self, angles, f1, **look: drawn.append(f1))
    monkeypatch.setattr("jaxvalues.report.figures.picture", lambda *parts: None)
    systems = {
        name: replace(system, runs=tuple(map(_without_first, system.runs))) for name, system in found.systems.items()
    }
    radar(replace(found, systems=systems), "test")
    assert len(drawn) == 3
    assert all(math.isnan(f1[0]) and math.isnan(f1[-1]) and np.isfinite(f1[1:-1]).all() for f1 in drawn)


def _without_first(run: RunResult) -> RunResult:
    """A run whose split has no positive of the first category."""
    scores = run.scores["test"]
    name = next(iter(scores.categories))
    none = replace(scores.categories[name], f1=None)
    return replace(run, scores={"test": replace(scores, categories={**scores.categories, name: none})})


def test_more_systems_than_colours_are_drawn_in_part_and_the_figure_says_so(found: StudyResults) -> None:
    strong = found.systems["strong"]
    many = {f"system {n}": replace(strong, name=f"system {n}", trained_parameters=10 * n + 10) for n in range(11)}
    drawn = frontier(replace(found, systems=many, contrasts=()), "test")
    assert "the best 8 of 11 systems" in drawn.finding


def test_the_figures_show_the_metric_of_the_study(found: StudyResults) -> None:
    other = replace(found, study=found.study.model_copy(update={"metric": "mean_category_f1"}))
    drawn = {one.name: one for one in pictures(other)}
    best = max(one.mean_category_intervals["test"].estimate for one in other.systems.values())
    assert drawn["scores-test"].title == "Mean category F1 on test"
    assert figure(best) in drawn["scores-test"].finding


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    found = results(tmp_path, ("_first", "$x$ and $\\y{$", "c"), "repeated.seed=[0,1]")
    write_report(found, tmp_path)
    for figure_name in ("parameters-test", "calibration-test", "trials"):
        svg = (tmp_path / "figures" / f"{figure_name}.svg").read_text(encoding="utf-8")
        words = ["".join(text.itertext()).strip() for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]
        assert {"_first", "$x$ and $\\y{$", "c"} <= set(words)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return results(tmp_path_factory.mktemp("long"), LONG, "repeated.seed=[0,1]")


def ends(picture: Picture) -> list[bool]:
    """Whether ink reaches the left and right end of a picture."""
    dark = np.asarray(Image.open(io.BytesIO(picture.png)).convert("L")) < 128
    return [bool(dark[:, side].any()) for side in (slice(0, 2), slice(-2, None))]


def test_captions_and_legends_fit_beside_long_names(long: StudyResults) -> None:
    for make in (forest, scores, radar):
        assert ends(make(long, "test")) == [False, False], make.__name__
