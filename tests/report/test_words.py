"""The sentences of a report: what decides, and what a reader must know of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reports import all_runs

from jaxvalues.report.tables import contrast_table
from jaxvalues.report.words import SAFE_SIDE, basis, crossed, listed
from jaxvalues.study.results import StudyResults

TWO = {"systems": {"a": {"tuning.method": "full"}, "b": {"tuning.method": "head"}}}


def test_several_seeds_rest_on_a_paired_t(found: StudyResults) -> None:
    said = basis(found)
    assert "rests on a paired t test over the runs of both systems, which speaks about this test set" in said
    assert SAFE_SIDE not in said
    assert [row[8] for row in contrast_table(found).rows] == ["paired t, 3 runs"] * 2


def test_single_runs_rest_on_a_permutation_whose_false_alarms_are_told(tmp_path: Path) -> None:
    found = all_runs(tmp_path, "repeated.seed=[0]", scientific=TWO)
    said = basis(found)
    assert "a permutation of whole conclusions where each side is one run, which says nothing about other seeds" in said
    assert SAFE_SIDE in said
    assert [row[5:7] + row[8:9] for row in contrast_table(found).rows] == [("", "", "permutation")]


def test_equal_runs_are_said_to_be_equal(found: StudyResults) -> None:
    equal = replace(found.contrasts[0], t=None, welch=None, sign_flip=None, permutation=0.04, p=0.04)
    some = replace(found, contrasts=(equal, found.contrasts[1]))
    said = basis(some)
    assert ", or a permutation of whole conclusions where all runs of a side are equal." in said
    assert "other seeds" not in said
    assert SAFE_SIDE in said
    assert contrast_table(some).rows[0][5:9:3] == ("", "permutation, all runs of a side are equal")


def test_crossed_keys_are_named(tmp_path: Path) -> None:
    repeated = {"seed": [0, 1], "init_seed": [0], "formulation.template": ["cls", "joined"]}
    found = all_runs(tmp_path, scientific=TWO, repeated=repeated)
    one = replace(found.contrasts[0], t=replace(found.contrasts[0].t, df=1.37), welch=None, sign_flip=None)
    some = replace(found, contrasts=(one,))
    assert crossed(one) == ["seeds", "templates"]
    assert (
        "rests on a t test over crossed seeds and templates, which speaks about this test set and new seeds and "
        "templates." in basis(some)
    )
    assert contrast_table(some).rows[0][8] == "t, crossed seeds and templates, 4 runs, df 1.4"


def test_lists_of_names_are_clear() -> None:
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a, x", "b"]) == "a, x; b"
