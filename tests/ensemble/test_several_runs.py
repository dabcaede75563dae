"""Several runs in one command: checked first, trained once each, stopped and gone on with, and combined."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest
from made_up import config_of, finish
from runs import SMALL, command, metrics

from jaxvalues.config import load_config, runs_of
from jaxvalues.data.loading import load_split
from jaxvalues.ensemble import training
from jaxvalues.errors import ConfigError
from jaxvalues.evaluation.predictions import read_predictions
from jaxvalues.run import train as run
from jaxvalues.run.folder import RunFolder
from jaxvalues.training import loop

COMPILED = "/jax/core/compile/backend_compile_duration"
ENSEMBLE = ("data.held_out=0.1", "data.folds=2", "ensemble.seeds=[0, 1]", "training.epochs=1")
RUNS = ["small-seed0-fold0", "small-seed0-fold1", "small-seed1-fold0", "small-seed1-fold1"]


class Lab(NamedTuple):
    """Where a small config lies, and where its runs go."""

    folder: Path

    def train(self, output: str, *overrides: str) -> tuple[int, str, str]:
        return command("train", self.folder / "small.yaml", f"output={self.folder / output}", *overrides)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, quick_compiles: None) -> Lab:
    folder = tmp_path_factory.mktemp("several")
    (folder / "small.yaml").write_text(f"{SMALL}runtime: {{compilation_cache: {folder / 'xla'}}}\n")
    return Lab(folder)


class Watched(NamedTuple):
    """Four runs trained in one command that was stopped in the last of them, then resumed."""

    stopped: tuple[int, str, str]
    finished: tuple[int, str, str]
    compiles: list[int]
    """Programs that XLA compiled for each run of the first command."""
    bytes_left: list[int]
    """What lay on the devices after each of the finished runs of both commands, beyond what was there before."""


@pytest.fixture(scope="module")
def watched(lab: Lab) -> Watched:
    compiles, bytes_left = [], []
    train_run, add = training.train_run, loop.Meter.add
    before = on_devices()

    def count(event: str, _: float, **__: Any) -> None:
        if event == COMPILED and compiles:
            compiles[-1] += 1

    def watch(config: Any, **options: Any) -> Any:
        compiles.append(0)
        scores = train_run(config, **options)
        bytes_left.append(on_devices() - before)
        return scores

    def strike(meter: loop.Meter, step: int, *rest: Any) -> None:
        add(meter, step, *rest)
        if len(compiles) == 4 and step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_run", watch)
        jax.monitoring.register_event_duration_secs_listener(count)
        patch.setattr(loop.Meter, "add", strike)
        stopped = lab.train("four", *ENSEMBLE)
        first = compiles.copy()
        finished = lab.train("four", *ENSEMBLE)
        jax.monitoring.unregister_event_duration_listener(count)
    return Watched(stopped, finished, first, bytes_left)


def on_devices() -> int:
    return sum(array.nbytes for array in jax.live_arrays())


@pytest.mark.exhaustive
def test_it_stops_as_a_whole_and_goes_on_where_it_was(watched: Watched, lab: Lab) -> None:
    code, out, err = watched.stopped
    assert code == 1
    assert "jaxvalues: stopped at step 2 of 4, state saved; run the same command to resume" in err
    assert [line for line in out.splitlines() if line.startswith("run ")] == [
        f"run {number} of 4: {name}" for number, name in enumerate(RUNS, start=1)
    ]
    code, out, err = watched.finished
    assert code == 0, err
    assert out.count("this run is already finished") == 3
    assert "resuming at step 2\n" in out
    for name in RUNS:
        lines = metrics(lab.folder / "four" / name)
        assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4]


@pytest.mark.exhaustive
def test_folds_and_seeds_compile_what_one_run_compiles(watched: Watched, lab: Lab) -> None:
    _, out, _ = watched.stopped
    several = [line.split(":")[0].strip() for line in out.splitlines() if "traced in" in line]
    code, out, _ = lab.train("one", *ENSEMBLE[:2], "data.fold=1", "training.epochs=1")
    assert code == 0
    one = [line.split(":")[0].strip() for line in out.splitlines() if "traced in" in line]
    assert several == one == ["evaluate [32 × 48]", "train [32 × 48]"]
    assert "compiled 2 programs, one for each batch shape: 1 to train, 1 to evaluate" in out
    assert watched.compiles[2:] == [0, 0]  # nothing at all once each size of fold has been there


@pytest.mark.slow
def test_nothing_stays_on_the_devices_between_runs(watched: Watched) -> None:
    assert len(watched.bytes_left) == 7
    assert max(watched.bytes_left) < 10_000  # a network has 400 thousand


@pytest.mark.slow
def test_the_folder_of_the_ensemble(watched: Watched, lab: Lab) -> None:
    folder = lab.folder / "four"
    assert {path.name for path in folder.iterdir()} == {
        *RUNS, "config.yaml", "ensemble.json", "environment.json", "thresholds.json", "scores.json", "manifest.json",
        *(f"{kind}-{part}.tsv" for kind in ("probabilities", "logits", "predictions") for part in ("held_out", "test")),
    }  # fmt: skip
    written = json.loads((folder / "ensemble.json").read_text())
    assert written["systems"] == [
        {"name": "small-seed0", "folders": RUNS[:2]},
        {"name": "small-seed1", "folders": RUNS[2:]},
    ]
    overrides = [*ENSEMBLE, f"output={folder}", "model.dtype=float32"]
    assert load_config(folder / "config.yaml") == load_config(lab.folder / "small.yaml", overrides).explicit()
    whole = load_split("training", source="sample")
    assert read_predictions(folder / "probabilities-held_out.tsv").ids == whole.ids
    assert "mean of 2 systems (4 runs), one threshold tuned on 230 held-out arguments" in watched.finished[1]
    assert "compiled 2 programs for 4 runs" in watched.finished[1]
    assert "Universalism: nature" in watched.finished[1]
    # It is what combining the runs by hand gives.
    code, _, err = command("ensemble", *(folder / name for name in RUNS), "--out", lab.folder / "by-hand")
    assert code == 0, err
    for name in ("predictions-test.tsv", "probabilities-held_out.tsv", "thresholds.json", "scores.json"):
        assert (folder / name).read_bytes() == (lab.folder / "by-hand" / name).read_bytes()


@pytest.mark.exhaustive
def test_another_method_combines_anew_and_trains_nothing(watched: Watched, lab: Lab) -> None:
    shutil.copytree(lab.folder / "four", lab.folder / "stack")
    code, out, err = lab.train("stack", *ENSEMBLE, "ensemble.method=stack")
    assert code == 0, err
    assert out.count("this run is already finished") == 4
    assert "stack of 2 systems (4 runs), one threshold tuned on 230 held-out arguments" in out
    assert json.loads((lab.folder / "stack/ensemble.json").read_text())["method"] == "stack"
    assert json.loads((lab.folder / "stack/ensemble.json").read_text())["stack"]["categories"]["Hedonism"]["weights"]
    # An ensemble stays one: no run takes its place, and other settings are refused before anything is trained.
    before = (lab.folder / "stack/scores.json").read_bytes()
    for overrides in (("data.held_out=0.1",), (*ENSEMBLE, "optimizer.b1=0.8")):
        code, out, err = lab.train("stack", *overrides)
        assert code == 2
        assert "holds an ensemble: give another output" in err or "small-seed0-fold0 holds a run with other set" in err
        assert "training and" not in out
    assert (lab.folder / "stack/scores.json").read_bytes() == before


@pytest.mark.slow
def test_every_run_writes_its_held_out_predictions(watched: Watched, lab: Lab) -> None:
    ids = {name: read_predictions(lab.folder / "four" / name / "probabilities-held_out.tsv").ids for name in RUNS}
    assert ids[RUNS[0]] == ids[RUNS[2]]
    assert sorted(ids[RUNS[0]] + ids[RUNS[1]]) == sorted(load_split("training", source="sample").ids)
    for name in RUNS:
        assert (lab.folder / "four" / name / "predictions-held_out.tsv").is_file()
        scores = RunFolder(lab.folder / "four" / name).held_out_scores()
        best = max(line["official_f1"] for line in metrics(lab.folder / "four" / name) if line["kind"] == "held_out")
        assert scores.official_f1 == pytest.approx(best)


def test_members_are_merged_into_the_config(lab: Lab) -> None:
    members = "[{name: wide, model: {config: {intermediate_size: 256}}}, {name: slow, seed: 7, data: {folds: null}}]"
    config = load_config(
        lab.folder / "small.yaml", ["data.held_out=0.1", "data.folds=2", f"ensemble.members={members}", "output=out"]
    )
    wide, _, slow = runs = runs_of(config)
    assert [str(run.folder) for run in runs] == ["out/wide-seed0-fold0", "out/wide-seed0-fold1", "out/slow-seed7"]
    assert (wide.model.config["intermediate_size"], wide.model.config["hidden_size"]) == (256, 64)
    assert (slow.model.config["intermediate_size"], slow.seed, slow.data.fold) == (128, 7, None)
    assert all(run.ensemble is None and not run.is_ensemble for run in runs)
    single = load_config(lab.folder / "small.yaml")
    assert runs_of(single) == (single,)


FOLDED = ("data.held_out=0.1", "data.folds=2")
REFUSED = {
    "misspelt key": (["ensemble.members=[{name: a, optimzer: {}}]"], "member a: unknown key `optimzer`; did you mean"),
    "misspelt key below": (["ensemble.members=[{name: a, model: {drop: 0}}]"], "member a: unknown key `model.drop`"),
    "wrong value": (["ensemble.members=[{name: a, training: {epochs: x}}]"], "member a: `training.epochs`: input"),
    "no name": (["ensemble.members=[{seed: 1}]"], "ensemble: members[0] needs a `name` of letters, digits"),
    "name that leads elsewhere": (["ensemble.members=[{name: ../a}]"], "ensemble: members[0] needs a `name`"),
    "name twice": (["ensemble.members=[{name: a}, {name: a, seed: 1}]"], "ensemble: members contains a twice"),
    "seed twice": (["ensemble.seeds=[1, 1]"], "ensemble: seeds contains 1 twice"),
    "seeds twice": (["ensemble.seeds=[1]", "ensemble.members=[{name: a, seed: 2}]"], "member a sets `seed`, but"),
    "ensemble in it": (["ensemble.members=[{name: a, ensemble: {}}]"], "member a cannot set `ensemble`"),
    "output in it": (["ensemble.members=[{name: a, output: b}]"], "member a cannot set `output`"),
    "folds of a named split": (["data.folds=2"], "but data.held_out names the split `validation`: set data.held"),
    "a fold that is not there": ([*FOLDED, "data.fold=2"], "below data.folds, which is 2, not 2"),
    "too many folds": ([FOLDED[0], "data.folds=99"], "data.folds is 99, but the 230 arguments of training have only"),
    "the same run": (["ensemble.members=[{name: a}, {name: b}]"], "a-seed0 and b-seed0 are the same run"),
    "other splits": (["ensemble.members=[{name: a}, {name: b, data: {report: [training], train: test}}]"], "a reports"),
    "nothing shared": (
        ["ensemble.members=[{name: a}, {name: b, data: {held_out: 0.1}}]"], "no argument is held out by all of a-s"
    ),
    "a second model too small": (
        ["ensemble.members=[{name: a}, {name: b, model: {config: {max_position_embeddings: 30}}}]"],
        "data.max_length is 48, but the model reads at most",
    ),
    "a batch that cannot be spread": (
        ["ensemble.members=[{name: a}, {name: b, training: {batch_size: 12}}]"], "training.batch_size: 12 rows"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_before_anything_is_trained(case: str, lab: Lab) -> None:
    overrides, sentence = REFUSED[case]
    code, out, err = lab.train("refused", *overrides)
    assert code == 2, err
    assert err.startswith("jaxvalues: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert "run 1 of" not in out
    assert not (lab.folder / "refused").exists()


def test_other_data_of_a_member_is_refused(lab: Lab, tmp_path: Path) -> None:
    members = f"[{{name: a}}, {{name: b, data: {{dir: {tmp_path / 'none'}}}}}]"
    code, _, err = lab.train("refused", f"ensemble.members={members}")
    assert code == 1
    assert "no such folder" in err
    assert not (lab.folder / "refused").exists()


@pytest.mark.parametrize("overrides", [["ensemble.seeds=[0, 1]"], [*FOLDED]])
def test_a_single_run_is_not_trained_instead(lab: Lab, overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match="asks for several runs, and this trains one"):
        run.train(load_config(lab.folder / "small.yaml", [f"output={lab.folder / 'refused'}", *overrides]))


def test_an_ensemble_does_not_take_the_place_of_a_run(lab: Lab) -> None:
    finish(lab.folder / "single", config_of(held_out=0.5))
    code, _, err = lab.train("single", *ENSEMBLE)
    assert code == 2
    assert err == f"jaxvalues: {lab.folder / 'single'} holds a single run: give the ensemble another folder\n"
