"""The results of a study, against what the statistics give for the same predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from runs import ROOT
from studies import planned, pretend

from jaxvalues.config import Config
from jaxvalues.config.writing import write_json
from jaxvalues.data.conclusions import group_by_conclusion
from jaxvalues.data.loading import load_split
from jaxvalues.errors import UserError
from jaxvalues.report import write_report
from jaxvalues.report.tables import main_table
from jaxvalues.statistics.bootstrap import two_level_interval
from jaxvalues.statistics.counts import Counts, count
from jaxvalues.statistics.tests import (
    benjamini_hochberg,
    crossed_t,
    holm,
    paired_t,
    permutation_per_category,
    sign_flip,
)
from jaxvalues.statistics.variance import components_interval
from jaxvalues.study.analysis import analyse
from jaxvalues.study.budget import Size
from jaxvalues.study.compare import results_of
from jaxvalues.study.crossed import Paired, difference_of, whole_grid
from jaxvalues.study.failures import failure_file
from jaxvalues.study.plan import Plan
from jaxvalues.study.reading import Truth, read_run
from jaxvalues.study.results import StudyResults
from jaxvalues.study.screen import verdict

PARTS = ("hits", "predicted")


def results(plan: Plan) -> StudyResults:
    return analyse(plan, dict.fromkeys(plan.systems, Size(10, 20, 3e9)))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Six seeds of three systems, of which two have the same quality."""
    plan = planned(tmp_path_factory.mktemp("study"), "repeated.seed=[0,1,2,3,4,5]")
    for system in plan.systems:
        for one in plan.runs(system, {}):
            pretend(one.config)
    return plan


@pytest.fixture(scope="module")
def found(plan: Plan) -> StudyResults:
    return results(plan)


def test_figures_are_those_of_the_statistics(found: StudyResults) -> None:
    truth = load_split("test", source="sample")
    group = group_by_conclusion(truth.arguments)[0]
    counts = {
        name: count(truth.labels, np.stack([run.decisions["test"] for run in system.runs]), group)
        for name, system in found.systems.items()
    }
    assert found.systems["weak"].intervals["test"] == components_interval(counts["weak"])
    assert counts["weak"].figure().tolist() == [run.scores["test"].official_f1 for run in found.systems["weak"].runs]
    weak, same = found.contrasts
    assert (weak.a, weak.b, weak.split) == ("weak", "strong", "test")
    a, b = counts["weak"].figure(), counts["strong"].figure()
    assert weak.t == paired_t(a, b)
    assert weak.sign_flip == sign_flip(a, b) == 2 / 2**6
    assert weak.interval == two_level_interval(counts["weak"], counts["strong"])
    assert weak.difference == pytest.approx((a - b).mean())
    assert list(weak.differences) == [f"seed {seed}" for seed in range(6)]
    assert [one.p_adjusted for one in found.contrasts] == holm([weak.p, same.p]).tolist()
    f1 = [[run.scores["test"].categories[name].f1 for name in found.categories] for run in found.systems["weak"].runs]
    assert np.isfinite(weak.category_differences).all()
    assert np.nanmean(f1) < 0.8
    both = (counts["weak"].totals, counts["strong"].totals)
    each = [2 * hits / (predicted + true) for hits, predicted, true in both]
    sums = (np.stack([getattr(counts[name], part).sum(axis=0) for name in ("weak", "strong")]) for part in PARTS)
    swapped = permutation_per_category(Counts(*sums, 6 * counts["weak"].true, counts["weak"].sizes), 0, 1)
    larger = [max(p, paired_t(*(f1[:, c] for f1 in each)).p) for c, p in enumerate(swapped)]
    assert weak.category_p_adjusted == pytest.approx(benjamini_hochberg(larger))
    assert set(found.systems["weak"].variance["test"].components) == {"seed", "conclusion", "interactions"}


def test_a_difference_is_claimed_where_there_is_one_and_only_there(found: StudyResults) -> None:
    weak, same = found.contrasts
    assert weak.decided
    assert verdict(weak).startswith("strong is better than weak by .")
    assert not same.decided
    assert verdict(same).startswith("same and strong: not decided by these data, ")
    assert weak.category_p_adjusted.min() < 0.05
    assert same.category_p_adjusted.min() > 0.05
    assert found.missing == ()


def test_one_seed_is_compared_by_permutation_and_said_to_be_one(tmp_path: Path) -> None:
    plan = planned(tmp_path, "repeated.seed=[0]")
    for system in plan.systems:
        pretend(plan.runs(system, {})[0].config)
    found = results(plan)
    weak = found.contrasts[0]
    assert weak.t is None
    assert weak.permutation == weak.p < 0.01
    assert "Some systems have one run: their differences say nothing about other seeds." in found.notes


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    for one in (*plan.runs("strong", {}), plan.runs("weak", {})[0], plan.runs("weak", {})[2]):
        pretend(one.config)
    failed = failure_file(plan.runs("weak", {})[1].config.folder)
    failed.write_text("the loss is nan\n\nTraceback", encoding="utf-8")
    found = results(plan)
    assert found.missing == (
        "weak: 2 of 3 runs finished.",
        "weak, seed 1: failed: the loss is nan",
        "same: 0 of 3 runs finished.",
    )
    (weak,) = found.contrasts  # of the seeds that both have
    assert list(weak.differences) == ["seed 0", "seed 2"]
    assert any(note.startswith("weak less strong is over the 2 runs that both have; ") for note in found.notes)
    assert found.systems["same"].intervals == {}


def test_p_is_adjusted_over_declared_contrasts_that_are_not_there_yet(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    for one in (*plan.runs("strong", {}), *plan.runs("weak", {})):
        pretend(one.config)
    (weak,) = results(plan).contrasts
    assert weak.p_adjusted == pytest.approx(min(2 * weak.p, 1))


def test_systems_without_randomness_are_fixed_ones(tmp_path: Path) -> None:
    """Three times the same predictions on each side: no spread is no proof."""
    plan = planned(tmp_path)
    for system in ("strong", "same"):
        first, *others = plan.runs(system, {})
        pretend(first.config)
        for one in others:
            shutil.copytree(first.config.folder, one.config.folder)
    alone = planned(tmp_path, "repeated.seed=[0]")
    three, one = results(plan).contrasts[0], results(alone).contrasts[0]
    assert three.t is None
    assert three.p == three.permutation == one.p > 0.05
    assert three.interval == one.interval
    assert len(three.differences) == 3


def test_seeds_and_templates_are_crossed(tmp_path: Path) -> None:
    """Runs that share a template are no independent ones, and what is missing leaves a smaller grid."""
    keys = {"seed": [0, 1, 2], "formulation.template": ["cls", "joined"]}
    plan = planned(tmp_path, repeated=keys)
    for system in plan.systems:
        for one in plan.runs(system, {}):
            pretend(one.config)
    found = results(plan)
    weak = found.contrasts[0]
    counts = {
        name: np.array([run.scores["test"].official_f1 for run in system.runs]).reshape(3, 2)
        for name, system in found.systems.items()
    }
    assert weak.t == crossed_t(counts["weak"], counts["strong"])
    assert weak.t.df < 5
    assert (weak.welch, weak.sign_flip, weak.permutation) == (None, None, None)
    assert weak.interval.low < weak.difference < weak.interval.high
    shutil.rmtree(plan.runs("weak", {})[5].config.folder)
    left = results(plan)
    assert list(left.contrasts[0].differences) == [
        f"seed {seed}, template {template}" for seed in (0, 1) for template in ("cls", "joined")
    ]
    assert left.systems["weak"].intervals["test"].estimate == pytest.approx(counts["weak"][:2].mean())
    (row,) = (row for row in main_table(left).rows if row[0] == "weak")
    assert row[-1] == "4 of 5"
    said = (
        "weak less strong is over the 4 runs that both have in a whole grid of the repeated keys; the figures of each"
    )
    assert any(note == f"{said} system are over the largest whole grid of its runs." for note in left.notes)


def test_a_combined_system_beside_several_runs_of_another(tmp_path: Path) -> None:
    """At one place of the shared keys: the mean of several runs of one is compared with one run of the other."""
    truth = Truth(load_split("test", source="sample"), np.arange(69) // 3)
    plan = planned(tmp_path, "repeated.seed=[0,1,2]")
    runs = []
    for one in (*plan.runs("strong", {}), plan.runs("weak", {})[0]):
        pretend(one.config)
        runs.append(read_run(one.config.folder, one.coordinates, {"test": truth}))
    found = difference_of(truth, Paired([()], (), (), [runs[:3]], [runs[3:]]), "official_f1")
    scores = [run.scores["test"].official_f1 for run in runs]
    assert found["interval"].estimate == pytest.approx(np.mean(scores[:3]) - scores[3])
    assert found["p"] < 0.05


def test_the_grid_leaves_out_what_misses_most() -> None:
    places = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"), ("c", "1")]
    assert whole_grid(places) == [["a", "b"], ["1", "2"]]
    assert whole_grid(places[:4]) == [["a", "b"], ["1", "2"]]
    assert whole_grid([("a", "1"), ("b", "2")]) in ([["a"], ["1"]], [["b"], ["2"]])


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_split_about_one_conclusion_is_left_out_and_said(tmp_path: Path, seeds: int) -> None:
    data = tmp_path / "data"
    shutil.copytree(ROOT / "jaxvalues/data/sample", data)
    header, *rows = (data / "arguments-test.tsv").read_text(encoding="utf-8").splitlines()
    cells = [row.split("\t") for row in rows]
    table = ["\t".join([one[0], "Whales", *one[2:]]) for one in cells]
    (data / "arguments-test.tsv").write_text("\n".join([header, *table, ""]), encoding="utf-8")
    plan = planned(tmp_path, f"repeated.seed={list(range(seeds))}", f"data.dir={data}", report=["test"])
    for system in plan.systems:
        for one in plan.runs(system, {}):
            pretend(one.config)
    found = results(plan)
    assert (found.splits, found.contrasts) == ({}, ())
    assert any(one.startswith("test: all arguments are about one conclusion") for one in found.missing)
    (run, *_) = plan.runs("weak", {})
    write_network(run.config)
    assert results_of(run.config.folder).missing == tuple(one for one in found.missing if one.startswith("test: "))
    assert write_report(results_of(run.config.folder), tmp_path).is_file()


def test_the_scores_of_a_run_do_not_belong_to_other_labels(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(ROOT / "jaxvalues/data/sample", data)
    plan = planned(tmp_path, "repeated.seed=[0]", f"data.dir={data}")
    (run,) = plan.runs("weak", {})
    pretend(run.config)
    write_network(run.config)
    assert results_of(run.config.folder).systems
    labels = data / "labels-test.tsv"
    head, row, rest = labels.read_text(encoding="utf-8").split("\n", 2)
    flipped = [row.split("\t")[0], *(str(1 - int(value)) for value in row.split("\t")[1:])]
    labels.write_text("\n".join([head, "\t".join(flipped), rest]), encoding="utf-8")
    with pytest.raises(UserError, match=r"was made with other data than .*: test differs, so its scores do not belong"):
        results_of(run.config.folder)


def write_network(config: Config) -> None:
    """What a run keeps of its network, which the report of a single run counts."""
    (config.folder / "model").mkdir()
    write_json(config.folder / "model/config.json", {**config.model.config, "vocab_size": 400, "pad_token_id": 1})


def test_nothing_finished_is_no_error(tmp_path: Path) -> None:
    found = results(planned(tmp_path))
    assert found.contrasts == ()
    assert len(found.missing) == 3


def test_results_are_plain_json(found: StudyResults) -> None:
    tree = json.loads(json.dumps(found.to_json()))
    assert tree["systems"]["weak"]["splits"]["test"]["official_f1"] == found.systems["weak"].intervals["test"].estimate
    assert [one["decided"] for one in tree["contrasts"]] == [True, False]


def test_other_data_and_other_arguments_are_refused(tmp_path: Path) -> None:
    plan = planned(tmp_path, "repeated.seed=[0]")
    folders = [plan.runs(system, {})[0].config for system in plan.systems]
    for config in folders:
        pretend(config)
    environment = folders[1].folder / "environment.json"
    (folders[1].folder / "manifest.json").unlink()
    write_json(environment, {"base": "random", "data": {"test": "1"}})
    with pytest.raises(UserError, match=r"has other data than .*: test differs"):
        results(plan)
    logits = folders[1].folder / "logits-test.tsv"
    logits.write_text(logits.read_text().replace("\n", "\nX", 1), encoding="utf-8")
    with pytest.raises(UserError, match="the predictions of test are of other arguments"):
        results(plan)


def test_a_replication_says_so(tmp_path: Path) -> None:
    plan = planned(tmp_path, "repeated.seed=[0]", report=["validation", "test"], replicate=True)
    for system in plan.systems:
        pretend(plan.runs(system, {})[0].config)
    found = results(plan)
    assert list(found.splits) == ["validation", "test"]
    run = found.systems["weak"].runs[0]
    assert run.scores["validation"].official_f1 == run.held_out.official_f1
    assert found.notes[0].startswith("A replication: steps and thresholds are chosen on validation")


def test_a_folder_that_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no study \(study.yaml\) and no finished run \(scores.json\)"):
        results_of(tmp_path)
