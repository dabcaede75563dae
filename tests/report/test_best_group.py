"""The best group: what tests tell from the best system is not in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from reports import all_runs

from jaxvalues.evaluation.official import score
from jaxvalues.report.best_group import best_group, how_found
from jaxvalues.report.tables import main_table
from jaxvalues.report.words import SAFE_SIDE
from jaxvalues.study.results import RunResult, StudyResults, SystemResult


def test_the_best_group_is_marked(found: StudyResults) -> None:
    assert best_group(found, "test") == {"strong", "same"}
    table = main_table(found)
    assert table.marked == {0, 2}
    assert table.note.endswith("and those not told from it by a paired t test over runs (5 %, Holm).")


def test_one_system_is_no_group(found: StudyResults) -> None:
    table = main_table(replace(found, systems={"weak": found.systems["weak"]}, contrasts=()))
    assert (table.marked, table.note) == (frozenset(), "")


def saying(one: SystemResult, truth: np.ndarray, wrong: int) -> SystemResult:
    """A system whose runs are all equal: the labels, but for so many cells of the first category."""
    decisions = truth.astype(bool)
    decisions[:wrong, 0] ^= True
    runs = tuple(
        replace(run, decisions={"test": decisions}, scores={"test": score(truth, decisions)}) for run in one.runs
    )
    return replace(one, runs=runs)


def test_equal_runs_are_one_fixed_system(found: StudyResults) -> None:
    truth = found.splits["test"].labels
    near, far = (saying(found.systems["same"], truth, wrong) for wrong in (1, len(truth)))
    best = saying(found.systems["strong"], truth, 0)
    pair = replace(found, systems={"best": best, "near": near})
    assert best_group(pair, "test") == {"best", "near"}  # a t test of differences that do not vary is certain
    assert SAFE_SIDE in how_found(pair, "test")
    noise = replace(found, systems={"best": best, "weak": found.systems["weak"], "near": near, "far": far})
    assert "weak" not in best_group(noise, "test")
    one_each = {name: replace(found.systems[name], runs=found.systems[name].runs[:1]) for name in ("strong", "weak")}
    assert best_group(replace(found, systems=one_each), "test") == {"strong"}


def test_crossed_keys_count_their_own_values(tmp_path: Path) -> None:
    repeated = {"seed": [0, 1, 2], "formulation.template": ["cls", "joined"]}
    systems = {"a": {"tuning.method": "full"}, "b": {"tuning.method": "head"}}
    found = all_runs(tmp_path, scientific={"systems": systems}, repeated=repeated)
    # Over the six runs the difference is clear; of the two templates, one has almost none.
    gains = {("cls", seed): 0.10 + 0.002 * seed for seed in range(3)} | {("joined", seed): 0.04 for seed in range(3)}

    def figures(one: SystemResult, sign: int) -> SystemResult:
        def shifted(run: RunResult) -> RunResult:
            at = (run.repeated["formulation.template"], run.repeated["seed"])
            scores = replace(run.scores["test"], official_f1=0.5 + sign * gains[at] / 2)
            return replace(run, scores={"test": scores})

        return replace(one, runs=tuple(map(shifted, one.runs)))

    both = replace(found, systems={name: figures(found.systems[name], s) for name, s in {"a": 1, "b": -1}.items()})
    assert best_group(both, "test") == {"a", "b"}
    assert "a t test over the values of each crossed key (5 %, Holm)" in how_found(both, "test")
