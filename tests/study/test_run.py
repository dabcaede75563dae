"""Running a study: what is run, in which order, what is kept, and what is said when a run fails."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from studies import SYSTEMS, planned, pretend

from jaxvalues.config import Config
from jaxvalues.errors import ConfigError, NotFiniteError, UserError
from jaxvalues.study import grouping
from jaxvalues.study import run as study_run
from jaxvalues.study.choice import beyond, choose, edges, extended, finished_trials
from jaxvalues.study.compare import parse_share
from jaxvalues.study.failures import failure_file
from jaxvalues.study.grouping import groups
from jaxvalues.study.measured import MEASURED, read_measured
from jaxvalues.study.plan import Plan
from jaxvalues.study.run import Share, run_study
from jaxvalues.training.loop import Stopped

RATES = {"keys": {"optimizer.learning_rate": [1e-4, 1e-3, 1e-2]}}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that were trained, "system/run"; training draws predictions instead."""
    names: list[str] = []

    def train(config: Config, **_: Any) -> Any:
        names.append(f"{config.folder.parent.name}/{config.folder.name.rpartition('_')[0]}")
        return pretend(config, held_out_noise=0.2 * abs(math.log10(config.optimizer.learning_rate) + 3))

    def train_together(configs: Sequence[Config], consoles: Sequence[Any], programs: Any) -> list[Any]:
        assert len(configs) == len(consoles) > 1
        names.append(f"{len(configs)} together")
        return [attempt(config) for config in configs]

    def attempt(config: Config) -> Any:
        try:
            return study_run.train(config)
        except UserError as error:
            return error

    monkeypatch.setattr(study_run, "train", train)
    monkeypatch.setattr(study_run, "train_together", train_together)
    return names


def run(plan: Plan, share: Share | None = None) -> tuple[bool, str]:
    """Whether all of a share is finished, and what was said."""
    out = io.StringIO()
    finished = run_study(plan, share or Share(), Console(file=out, width=200))
    return finished, out.getvalue()


@pytest.mark.slow
def test_every_run_is_trained_once_and_more_seeds_alone(trained: list[str], tmp_path: Path) -> None:
    finished, said = run(planned(tmp_path))
    assert finished
    assert trained == [f"{name}/seed-{seed}" for name in ("strong", "weak", "same") for seed in (0, 1, 2)]
    assert "strong, seed 0: official F1 held-out " in said
    assert "8 of 9 done, about 0 s left" in said
    measured = list((tmp_path / "study/runs").rglob(MEASURED))
    assert len(measured) == 9
    trained.clear()
    assert run(planned(tmp_path))[0]
    assert trained == []
    assert run(planned(tmp_path, "repeated.seed=[0,1,2,3]"))[0]
    assert trained == ["strong/seed-3", "weak/seed-3", "same/seed-3"]


@pytest.mark.slow
def test_trials_come_first_and_the_best_value_runs(trained: list[str], tmp_path: Path) -> None:
    plan = planned(tmp_path, "repeated.seed=[7]", nuisance=RATES)
    assert run(plan)[0]
    assert len(trained) == 9 + 3
    assert trained[:3] == [f"strong/learning_rate-{rate}" for rate in ("0.0001", "0.001", "0.01")]
    assert trained[9:] == ["strong/seed-7", "weak/seed-7", "same/seed-7"]
    assert choose(plan, "weak") == {"optimizer.learning_rate": 1e-3}
    chosen = plan.runs("weak", {"optimizer.learning_rate": 1e-3})[0]
    assert (chosen.config.folder / "scores.json").is_file()


@pytest.mark.slow
def test_trials_are_chosen_by_the_figure_of_the_study(trained: list[str], tmp_path: Path) -> None:
    two = {"systems": {name: SYSTEMS[name] for name in ("strong", "weak")}}
    plan = planned(tmp_path, "repeated.seed=[7]", nuisance=RATES, scientific=two)
    assert run(plan)[0]
    first = plan.trials("weak")[0]
    path = first.config.folder / "scores.json"
    scores = json.loads(path.read_text())
    scores["held_out"]["mean_category_f1"] = 1.5  # above all others, which have up to 1
    path.write_text(json.dumps(scores))
    by_mean = planned(tmp_path, "repeated.seed=[7]", "metric=mean_category_f1", nuisance=RATES, scientific=two)
    assert choose(plan, "weak") == {"optimizer.learning_rate": 1e-3}
    assert choose(by_mean, "weak") == first.coordinates
    assert finished_trials(by_mean, "weak")[0].figure == 1.5


@pytest.mark.exhaustive
def test_what_differs_in_traced_numbers_alone_trains_together(
    trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = [f"learning_rate-{rate}" for rate in ("0.0001", "0.001", "0.01")]
    seeds = ["strong/seed-0", "strong/seed-1", "weak/seed-0", "weak/seed-1", "same/seed-0", "same/seed-1"]
    plan = planned(tmp_path, "repeated.seed=[0,1]", "together=2", nuisance=RATES)
    assert run(plan)[0]
    alone = [f"strong/{rate}" for rate in rates]
    pairs = [["2 together", *(f"{name}/{rate}" for rate in rates)] for name in ("weak", "same")]
    assert trained == [*alone, *pairs[0], *pairs[1], *seeds]  # random weights are those of the seed
    took = [read_measured(one.config.folder).together for one in (*plan.trials("weak")[:2], *plan.trials("strong")[:1])]
    assert took == [2, 2, None]

    def fails(configs: Sequence[Config], consoles: Sequence[Any], programs: Any) -> list[Any]:
        raise RuntimeError("RESOURCE_EXHAUSTED")

    good = study_run.train_together
    for name in ("again", "third"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(study_run, "train_together", fails)
    finished, said = run(planned(tmp_path / "again", "repeated.seed=[0]", "together=3", nuisance=RATES))
    assert finished
    assert "they are trained one by one instead: RuntimeError: RESOURCE_EXHAUSTED" in said

    def one_fails(*rest: Any) -> list[Any]:
        return [UserError("the loss is nan"), *good(*rest)[1:]]

    monkeypatch.setattr(study_run, "train_together", one_fails)
    plan = planned(tmp_path / "third", "repeated.seed=[0]", "together=3", nuisance=RATES)
    finished, said = run(plan)
    assert not finished
    assert said.count("FAILED: the loss is nan; the study continues") == 2
    assert failure_file(plan.trials("weak")[0].config.folder).read_text().startswith("the loss is nan")


def test_groups_are_equally_large_and_of_runs_at_the_same_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = planned(tmp_path, nuisance={"keys": {"optimizer.learning_rate": [10.0**-n for n in range(10)]}}).trials(
        "weak"
    )
    sizes = {most: [len(one) for one in groups(runs, most)] for most in (4, 5, 16, False)}
    assert sizes == {4: [4, 3, 3], 5: [5, 5], 16: [10], False: [1] * 10}
    monkeypatch.setattr(grouping, "most_together", lambda config: 7)
    assert [len(one) for one in groups(runs, "auto")] == [5, 5]
    steps = {run.config.folder: step for run, step in zip(runs, [None, 4] * 5, strict=True)}
    monkeypatch.setattr(grouping.RunFolder, "newest_step", lambda self: steps[self.path])
    assert groups(runs, 16) == [runs[::2], runs[1::2]]


@pytest.mark.slow
def test_a_run_that_fails_is_said_and_tried_again(
    trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = study_run.train

    def failing(error: Exception) -> Callable[..., Any]:
        def train(config: Config, **rest: Any) -> Any:
            if (config.tuning.method, config.seed) == ("bitfit", 1):
                raise error
            return good(config, **rest)

        return train

    plan = planned(tmp_path)
    bad = plan.runs("weak", {})[1].config.folder
    for error, words in (
        (UserError("the loss is nan"), "the loss is nan"),
        (RuntimeError("oom\nmore"), "RuntimeError: oom"),
    ):
        monkeypatch.setattr(study_run, "train", failing(error))
        finished, said = run(plan)
        assert not finished
        assert f"weak, seed 1: FAILED: {words}; the study continues" in said
        assert failure_file(bad).read_text().startswith(f"{words}\n\nTraceback")
    assert len(trained) == 8
    monkeypatch.setattr(study_run, "train", good)
    assert run(plan)[0]
    assert trained[8:] == ["weak/seed-1"]
    assert not failure_file(bad).exists()


def test_a_trial_that_diverges_is_worse_than_all_others_and_not_tried_again(
    trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = study_run.train

    def train(config: Config, **rest: Any) -> Any:
        if config.optimizer.learning_rate >= bad:
            trained.append("diverged")
            raise NotFiniteError("the loss at step 1 is nan")
        return good(config, **rest)

    monkeypatch.setattr(study_run, "train", train)
    two = {"systems": {name: SYSTEMS[name] for name in ("strong", "weak")}}
    plan, bad = planned(tmp_path, "repeated.seed=[7]", nuisance=RATES, scientific=two), 1e-2
    finished, said = run(plan)
    assert said.count("FAILED: the loss at step 1 is nan") == 2
    assert trained[-2:] == ["strong/seed-7", "weak/seed-7"]
    assert choose(plan, "weak") == {"optimizer.learning_rate": 1e-3}
    trained.clear()
    assert run(plan)[0]
    assert trained == []
    bad = 0  # all of them
    (tmp_path / "all").mkdir()
    plan = planned(tmp_path / "all", "repeated.seed=[7]", nuisance=RATES, scientific=two)
    finished, said = run(plan)
    assert not finished
    assert choose(plan, "weak") is None


def test_a_range_is_extended_by_what_a_system_can_have(trained: list[str], tmp_path: Path) -> None:
    """No rate of dropout is below 0, and a rank of 1 is not tried twice."""
    two = {"systems": {name: SYSTEMS[name] for name in ("strong", "weak")}}
    for number, keys in enumerate(({"model.dropout": [0.0, 0.1]}, {"training.epochs": [1, 2]})):
        folder = tmp_path / str(number)
        folder.mkdir()
        plan = planned(folder, "repeated.seed=[0]", scientific=two, nuisance={"keys": keys, "extend": True})
        assert run(plan)[0]
        assert choose(plan, "weak") == {key: values[0] for key, values in keys.items()}
        assert extended(plan) == {}
    assert len(trained) == 2 * (4 + 2)


@pytest.mark.slow
def test_a_request_to_stop_ends_the_study(trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = study_run.train

    def train(config: Config, **rest: Any) -> Any:
        if len(trained) == 4:
            raise Stopped("stopped at step 3 of 9")
        return good(config, **rest)

    monkeypatch.setattr(study_run, "train", train)
    with pytest.raises(Stopped):
        run(planned(tmp_path))
    monkeypatch.setattr(study_run, "train", good)
    assert run(planned(tmp_path))[0]
    assert len(trained) == len(set(trained)) == 9


@pytest.mark.slow
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_share_the_runs(parts: int, trained: list[str], tmp_path: Path) -> None:
    plan, sizes = planned(tmp_path), []
    for number in range(1, parts + 1):
        before = len(trained)
        assert run(plan, Share(number, parts))[0]
        sizes.append(len(trained) - before)
    assert len(trained) == len(set(trained)) == 9
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.exhaustive
def test_a_part_waits_for_the_trials_of_others(trained: list[str], tmp_path: Path) -> None:
    plan = planned(tmp_path, nuisance=RATES)
    finished, said = run(plan, Share(1, 2))
    assert not finished
    assert "weak: its runs wait for trials that are not finished; run the command again" in said
    run(plan, Share(2, 2))
    assert run(plan, Share(1, 2))[0]
    assert run(plan, Share(2, 2))[0]
    assert len(trained) == len(set(trained)) == 18


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2"])
def test_a_part_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="expected I/N with I from 1 to N, such as 2/8"):
        parse_share(text)
    assert parse_share("2/8") == Share(2, 8)


def test_edges_are_of_numbers_with_a_range() -> None:
    assert edges(
        {"a": (1, 2, 3), "b": (0.1, 0.2), "c": ("x", "y"), "d": (1,)}, {"a": 2, "b": 0.2, "c": "x", "d": 1}
    ) == {"b": "highest"}
    assert edges({"a": (1, 2)}, {"a": 1}) == {"a": "lowest"}


@pytest.mark.slow
def test_ranges_are_extended_for_all_where_one_is_on_its_edge(trained: list[str], tmp_path: Path) -> None:
    nuisance = {"keys": {"optimizer.learning_rate": [1e-5, 1e-4]}, "extend": True}
    plan = planned(tmp_path, "repeated.seed=[0]", nuisance=nuisance)
    assert beyond(plan, {name: {"optimizer.learning_rate": 1e-4} for name in plan.systems}, {}) == {
        name: {"optimizer.learning_rate": (1e-3,)} for name in plan.systems
    }
    assert run(plan)[0]
    added = extended(plan)  # the best is 1e-3: once beyond it is still on the edge, so twice
    assert {name: values["optimizer.learning_rate"] for name, values in added.items()} == dict.fromkeys(
        plan.systems, (1e-3, 1e-2)
    )
    assert choose(plan, "weak", added) == {"optimizer.learning_rate": 1e-3}
    assert len(trained) == 3 * 4 + 3
