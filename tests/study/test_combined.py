"""Systems that combine runs of another one: their members, what they compute, and what is made of them."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from studies import SYSTEMS, planned, pretend

from jaxvalues.config import Config
from jaxvalues.data.conclusions import group_by_conclusion
from jaxvalues.data.loading import load_split
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.combine import mean
from jaxvalues.evaluation.predictions import read_logits
from jaxvalues.report.tables import best_group, variance_table
from jaxvalues.statistics.counts import count
from jaxvalues.statistics.tests import paired_t
from jaxvalues.study import run as study_run
from jaxvalues.study.analysis import analyse
from jaxvalues.study.budget import Size, sizes_of
from jaxvalues.study.combined import check_rounds, combined_runs, in_a_sentence, rounds_of, runs_worth
from jaxvalues.study.combining import CHOICE, Halving, result_folder, score_after
from jaxvalues.study.plan import Plan
from jaxvalues.study.run import Share, is_finished, planned_folders, run_study
from jaxvalues.training.loop import Paused

MEAN = {"of": "weak", "over": "init", "members": 3}
HALVING = {**MEAN, "members": 4, "combine": "halving"}
WEIGHTS = {"of": "weak", "over": "order", "members": 2, "combine": "weights"}


def study(folder: Path, *overrides: str, combined: dict[str, Any], **changes: Any) -> Plan:
    return planned(folder, *overrides, scientific={"systems": SYSTEMS, "combined": combined}, **changes)


def run(plan: Plan, share: Share | None = None) -> tuple[bool, str]:
    out = io.StringIO()
    return run_study(plan, share or Share(), Console(file=out, width=300)), out.getvalue()


def seeds(plan: Plan, name: str) -> list[list[tuple[int, int]]]:
    """(seed, seed of new weights) of every member of every run."""
    return [
        [(one.config.seed, one.config.start_seed) for one in each.members] for each in combined_runs(plan, name, {})
    ]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that were trained, "system seed init step"; training draws predictions, scores grow with the init."""
    names: list[str] = []

    def train(config: Config, pause_at: int | None = None, **_: Any) -> Any:
        names.append(f"{config.folder.parent.name} {config.seed} {config.start_seed} {pause_at}")
        config.folder.mkdir(parents=True, exist_ok=True)
        scores = {} if pause_at is not None else pretend(config)
        good = 0.3 + 1e-7 * (config.start_seed % 300_000)  # the third is the best
        lines = [{"step": at, "kind": "held_out", "official_f1": good} for at in range(0, (pause_at or 200) + 1)]
        (config.folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
        if pause_at is not None:
            raise Paused(f"paused at step {pause_at}")
        return scores

    monkeypatch.setattr(study_run, "train", train)
    return names


def test_members_differ_in_what_they_are_over_and_the_first_is_the_system_s_own_run(tmp_path: Path) -> None:
    over = {"of": "weak", "over": "formulation.template"}
    plan = study(
        tmp_path,
        combined={"inits": MEAN, "orders": WEIGHTS, "templates": over},
        repeated={"seed": [0, 7], "formulation.template": ["cls", "joined"]},
    )
    assert seeds(plan, "inits")[::2] == [
        [(0, 0), (0, 100_000), (0, 200_000)],
        [(7, 7), (7, 100_007), (7, 200_007)],
    ]
    assert seeds(plan, "orders")[0] == [(0, 0), (100_000, 0)]
    own = {one.config.folder for one in plan.runs("weak", {})}
    assert {one.members[0].config.folder for one in combined_runs(plan, "inits", {})} == own
    templates = combined_runs(plan, "templates", {})
    assert [dict(one.coordinates) for one in templates] == [{"seed": 0}, {"seed": 7}]
    assert {one.config.folder for each in templates for one in each.members} == own
    folders = [one.folder for name in ("inits", "orders", "templates") for one in combined_runs(plan, name, {})]
    assert len(set(folders)) == 4 + 4 + 2
    changed = study(tmp_path, "training.epochs=9", combined={"inits": MEAN})
    assert combined_runs(changed, "inits", {})[0].folder not in folders
    assert [one.a for one in plan.contrasts] == ["weak", "same", "inits", "orders", "templates"]
    # What is left of a study: three systems of four runs, and members that are no runs of a system.
    assert len(planned_folders(plan)) == 3 * 4 + 4 * 2 + 4 * 1


def test_halving_takes_two_runs_for_four_members() -> None:
    assert rounds_of(4) == [(4, 0.25), (2, 0.5), (1, 1.0)]
    assert rounds_of(5) == [(5, 0.125), (3, 0.25), (2, 0.5), (1, 1.0)]
    assert rounds_of(2) == [(2, 0.5), (1, 1.0)]


def test_what_is_computed_is_counted_and_said(tmp_path: Path) -> None:
    plan = study(tmp_path, combined={"mean": MEAN, "best": HALVING, "soup": WEIGHTS}, repeated={"seed": [0, 1]})
    sizes, how = sizes_of(plan), plan.study.scientific.combined
    assert [runs_worth(how[name], number) for name, number in (("mean", 3), ("best", 4), ("soup", 2))] == [3, 2, 2]
    weak = sizes["weak"]
    assert sizes["mean"] == Size(3 * weak.trained, weak.frozen, 3 * weak.flops)
    assert sizes["best"] == sizes["soup"] == Size(weak.trained, weak.frozen, 2 * weak.flops)
    assert in_a_sentence(plan, "best") == (
        "best: the best of 4 initial values of weak on held-out arguments; 4 train to 0.25 of all steps, the best 2 to "
        "0.5 of them, and the best one to the end; it computes as much as 2 runs of weak."
    )
    assert in_a_sentence(plan, "soup") == (
        "soup: the mean of the weights of 2 runs of weak with other orders of the data; it computes as much as 2 runs "
        "of weak."
    )


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"x": {**MEAN, "of": "best"}}, "x is of 'best', which is no system that trains (strong, weak, same)"),
    ({"x": MEAN, "y": {**MEAN, "of": "x"}}, "y is of 'x', which is no system that trains"),
    ({"weak": MEAN}, "weak is the name of a system too"),
    ({"x": {"of": "weak", "over": "init"}}, "`members` belongs to `over: init` and `over: order`, and these need it"),
    ({"x": {"of": "weak", "over": "seed", "members": 3}}, "the members over a repeated key are its values"),
    ({"x": {"of": "weak", "over": "inits"}}, "x is over 'inits', expected init, order or a repeated key with two"),
    ({"x": {"of": "weak", "over": "seed"}}, "x is over seed and nothing else is repeated, so that it would"),
    ({"x": {**MEAN, "combine": "weights"}}, "`combine: weights` needs `over: order`, not init: only weights"),
    ({"we/ak": MEAN, "we ak": MEAN}, "two systems have the folder we-ak"),
    ({"x": {**MEAN, "members": 1}}, "members"),
]  # fmt: skip


@pytest.mark.parametrize(("combined", "said"), REFUSED, ids=[said[:30] for _, said in REFUSED])
def test_what_cannot_be_combined_is_one_sentence(combined: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        study(tmp_path, combined=combined)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_choice_needs_an_evaluation_where_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"best chooses after 1/4 of the training of weak, .* a multiple of 4, not 3"):
        check_rounds(study(tmp_path, "training.epochs=3", combined={"best": HALVING}))
    check_rounds(study(tmp_path, "training.epochs=8", combined={"best": HALVING}))
    check_rounds(study(tmp_path, "training.epochs=3", "training.evaluate_every=5", combined={"best": HALVING}))


@pytest.mark.slow
def test_means_are_made_once_all_members_are_there(trained: list[str], tmp_path: Path) -> None:
    plan = study(tmp_path, combined={"mean": MEAN}, repeated={"seed": [0, 1]})
    finished, said = run(plan)
    assert finished
    assert is_finished(plan)
    assert trained[6:] == [
        "weak 0 100000 None", "weak 0 200000 None", "weak 1 100001 None", "weak 1 200001 None",
    ]  # fmt: skip
    assert "mean, seed 1: official F1 held-out " in said
    first, second = combined_runs(plan, "mean", {})
    each = [read_logits(one.config.folder / "logits-test.tsv").values for one in first.members]
    np.testing.assert_allclose(read_logits(first.folder / "logits-test.tsv").values, mean(np.stack(each)), rtol=1e-5)
    trained.clear()
    assert run(plan)[0]
    assert trained == []
    found = analyse(plan, dict.fromkeys(plan.names, Size(10, 20, 3e9)))
    assert [dict(one.repeated) for one in found.systems["mean"].runs] == [{"seed": 0}, {"seed": 1}]
    assert found.systems["mean"].runs[0].folder == first.folder
    assert found.systems["mean"].variance["test"].levels["seed"] == 2
    contrast = next(one for one in found.contrasts if one.a == "mean")
    assert list(contrast.differences) == ["seed 0", "seed 1"]
    assert found.missing == ()

    (second.members[2].config.folder / "scores.json").unlink()
    (second.folder / "scores.json").unlink()
    found = analyse(plan, dict.fromkeys(plan.names, Size(10, 20, 3e9)))
    assert found.missing == ("mean, seed 1: 1 of 3 members are not finished.", "mean: 1 of 2 runs finished.")
    assert not is_finished(plan)


def test_members_belong_to_the_same_share_whatever_is_finished(trained: list[str], tmp_path: Path) -> None:
    plan = study(tmp_path, combined={"mean": MEAN}, repeated={"seed": [0, 1, 2]}, report=["test"])
    own = [one for name in plan.systems for one in plan.runs(name, {})]
    for one in (*own, *combined_runs(plan, "mean", {})[0].members):
        pretend(one.config)
    run(plan, Share(1, 2))  # the first combination, and its share of the other members
    first = list(trained)
    for one in combined_runs(plan, "mean", {})[1:]:
        for member in one.members[1:]:
            shutil.rmtree(member.config.folder, ignore_errors=True)
    trained.clear()
    run(plan, Share(2, 2))
    assert sorted([*first, *trained]) == [
        "weak 1 100001 None", "weak 1 200001 None", "weak 2 100002 None", "weak 2 200002 None",
    ]  # fmt: skip


@pytest.mark.exhaustive
def test_a_member_that_fails_is_said_and_its_run_waits(
    trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = study_run.train

    def train(config: Config, **rest: Any) -> Any:
        if config.start_seed == 100_001:
            raise UserError("the loss is nan")
        return good(config, **rest)

    monkeypatch.setattr(study_run, "train", train)
    plan = study(tmp_path, combined={"mean": MEAN}, repeated={"seed": [0, 1]})
    finished, said = run(plan)
    assert not finished
    assert "mean, seed 1: waits for 1 of 3 members that are not finished; run the command again" in said
    found = analyse(plan, dict.fromkeys(plan.names, Size(10, 20, 3e9)))
    assert found.missing[-1] == "mean, seed 1, init_seed 100001: failed: the loss is nan"
    monkeypatch.setattr(study_run, "train", good)
    assert run(plan)[0]


@pytest.mark.slow
def test_the_best_half_goes_on(trained: list[str], tmp_path: Path) -> None:
    plan = study(
        tmp_path, "training.epochs=4", "training.batch_size=32", combined={"best": HALVING}, repeated={"seed": [0, 1]}
    )
    quarter = combined_quarter(plan)
    finished, said = run(plan)
    assert finished
    assert [one for one in trained if one.startswith("weak 0 ")] == [
        "weak 0 0 None",  # the system's own run, which is the first member
        *(f"weak 0 {start} {quarter}" for start in (100_000, 200_000, 300_000)),
        f"weak 0 100000 {2 * quarter}",
        f"weak 0 200000 {2 * quarter}",
        "weak 0 200000 None",
    ]
    first = combined_runs(plan, "best", {})[0]
    assert result_folder(first).resolve() == first.members[2].config.folder.resolve()
    choice = json.loads((first.folder / CHOICE).read_text())
    assert [(one["trained_share"], len(one["scores"])) for one in choice["rounds"]] == [(0.25, 4), (0.5, 2)]
    assert score_after(first.members[1], quarter, "official_f1") == pytest.approx(0.31)
    assert said.count(": pauses; ") == 2 * 5
    trained.clear()
    assert run(plan)[0]
    assert trained == []
    found = analyse(plan, dict.fromkeys(plan.names, Size(10, 20, 3e9)))
    assert [one.repeated["seed"] for one in found.systems["best"].runs] == [0, 1]
    assert found.missing == ()


def combined_quarter(plan: Plan) -> int:
    """The steps of an epoch, which is a quarter of all steps."""
    halving = Halving(combined_runs(plan, "best", {})[0], "official_f1")
    assert halving.pause_at(halving.rounds[0]) == halving.epoch
    return halving.epoch


@pytest.mark.parametrize(("keep", "expected"), [("best", 0.5), ("last", 0.2)])
def test_scores_are_the_best_so_far_or_the_last(keep: str, expected: float, tmp_path: Path) -> None:
    one = study(tmp_path, f"training.keep={keep}", combined={}).runs("weak", {})[0]
    one.config.folder.mkdir(parents=True)
    scores = {0: 0.5, 3: 0.2, 6: 0.9}
    lines = [{"step": step, "kind": "held_out", "official_f1": score} for step, score in scores.items()]
    lines.insert(1, {"step": 1, "kind": "train"})
    (one.config.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert score_after(one, 2, "official_f1") == expected
    assert score_after(one, 4, "official_f1") == 0.9


@pytest.mark.exhaustive
def test_parts_of_a_study_make_all_combinations_together(trained: list[str], tmp_path: Path) -> None:
    plan = study(tmp_path, combined={"mean": MEAN, "best": {**HALVING, "members": 2}}, repeated={"seed": [0, 1, 2]})
    for _ in range(2):  # the first part waits for members of the second
        states = [run(plan, Share(number, 2))[0] for number in (1, 2)]
    assert states == [True, True]
    assert is_finished(plan)
    ended = [one for one in trained if one.endswith("None")]
    assert len(ended) == len(set(ended))


def test_a_system_over_a_repeated_key_is_compared_with_the_mean_of_its_members(tmp_path: Path) -> None:
    plan = study(
        tmp_path,
        combined={"mean": {"of": "weak", "over": "formulation.template"}},
        repeated={"seed": [0, 1, 2], "formulation.template": ["cls", "joined"]},
        contrasts=[{"a": "mean", "b": "weak"}, {"a": "strong", "b": "weak"}],
    )
    truth = load_split("test", source="sample")
    for system in plan.systems:
        for one in plan.runs(system, {}):
            pretend(one.config)
    run_study(plan, Share(), Console(file=io.StringIO()))
    found = analyse(plan, dict.fromkeys(plan.names, Size(10, 20, 3e9)))
    mean_less_weak, both = found.contrasts
    group = group_by_conclusion(truth.arguments)[0]
    decided = np.stack([run.decisions["test"] for run in found.systems["weak"].runs])
    weak = count(truth.labels, decided, group).figure().reshape(3, 2).mean(axis=1)
    ours = np.array([run.scores["test"].official_f1 for run in found.systems["mean"].runs])
    assert list(mean_less_weak.differences) == ["seed 0", "seed 1", "seed 2"]
    assert mean_less_weak.t == paired_t(ours, weak)
    assert mean_less_weak.interval.low < mean_less_weak.difference < mean_less_weak.interval.high
    assert len(both.differences) == 6
    assert best_group(found, "test") == {"strong", "same"}  # by the mean of what they share
    rows = {name: cells for name, *cells in variance_table(found, "test").rows}
    assert "" not in rows["weak"]
    assert [bool(cell) for cell in rows["mean"]] == [True, False, True, True]
    assert found.notes[0].startswith("mean: the mean probability of 2 runs of weak with other values of formulation.")
