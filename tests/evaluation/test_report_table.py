"""The printed tables hold the right figures and fit the terminal."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from jaxvalues.data.taxonomy import CATEGORIES, GROUPS
from jaxvalues.evaluation.official import Scores, score
from jaxvalues.evaluation.report_table import render_members, render_scores

C = len(CATEGORIES)


def printed(scores: dict[str, Scores], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    render_scores(scores, console)
    return console.file.getvalue().splitlines()


def example(seed: int) -> Scores:
    rng = np.random.default_rng(seed)
    truth, predicted = ((rng.random((60, C)) < 0.4).astype(int) for _ in range(2))
    truth[:, 2] = 0
    return score(truth, predicted)


def short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def test_every_figure_is_there():
    scores = example(0)
    lines = printed({"test": scores}, 80)
    four = (scores.official_f1, scores.macro_precision, scores.macro_recall, scores.mean_category_f1)
    assert ["test", *map(short, four)] in [line.split() for line in lines]
    assert "official F1" in lines[1]
    assert "category F1" in lines[1]
    for name, label in (scores.categories | scores.groups).items():
        (line,) = (line for line in lines if line.startswith(name))
        figures = ["–"] * 3 if label.f1 is None else [short(v) for v in (label.precision, label.recall, label.f1)]
        assert line.removeprefix(name).split() == [*figures, str(label.support)]
    assert sum(line.split()[-4:-1] == ["–"] * 3 for line in lines) == 1  # the category that nobody has


def test_perfect_is_one():
    labels = np.ones((3, C), int)
    lines = printed({"test": score(labels, labels)}, 80)
    assert ["Face", "1.00", "1.00", "1.00", "3"] in [line.split() for line in lines]


@pytest.mark.parametrize(("width", "tables"), [(60, 6), (80, 3), (100, 2), (120, 2), (200, 1)])
def test_splits_stand_side_by_side_as_far_as_they_fit(width, tables):
    names = ("training", "validation", "test", "validation-zhihu", "test-nahjalbalagha", "my [b]test")
    lines = printed({name: example(seed) for seed, name in enumerate(names)}, width)
    assert all(len(line) <= width for line in lines)
    for name in ("Conformity: interpersonal", *GROUPS):
        assert sum(line.startswith(name) for line in lines) == tables
    heads = "\n".join(lines)
    if width >= 80:
        assert all(heads.count(name) == 2 for name in ("validation-zhihu", "test-nahjalbalagha", "my [b]test"))
        assert "…" not in heads


@pytest.mark.parametrize("width", [60, 80])
def test_members_of_an_ensemble_fit_and_every_part_is_there(width):
    parts = {"held_out": 0.5, "validation": 0.25, "test": 0.125, "test-nahjalbalagha": 0.75}
    members = {
        "roberta-large-multi-head": {part: [figure, figure + 0.1] for part, figure in parts.items()},
        "b": {part: [figure] for part, figure in parts.items()},
    }
    console = Console(file=io.StringIO(), width=width, color_system=None)
    render_members(members, parts, console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    ensemble = [line.split()[2:] for line in lines if line.startswith("ensemble")]
    assert [figure for row in ensemble for figure in row] == [".500", ".250", ".125", ".750"]
    assert sum("± .071" in line for line in lines) == len(ensemble)


def test_the_summary_is_whole_at_60_columns():
    lines = printed({"test-nahjalbalagha": example(0)}, 60)
    assert not any("…" in line for line in lines)
    assert any(line.split()[1:4] == ["F1", "precision", "recall"] for line in lines[:4])
