"""Runs that train together: each has the folder and the numbers of a run alone, and the failure of one is its own."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from rich.console import Console
from runs import metrics

from jaxvalues.config import Config, load_config
from jaxvalues.data.loading import load_split
from jaxvalues.data.tokenizers import train_tokenizer
from jaxvalues.errors import UserError
from jaxvalues.evaluation.predictions import read_predictions
from jaxvalues.models.loading import init_model, save_model
from jaxvalues.run import together
from jaxvalues.run.console import RunConsole
from jaxvalues.run.predict import predict
from jaxvalues.run.together import ApartError, most_together, together_key, train_together
from jaxvalues.run.train import train
from jaxvalues.training import loop
from jaxvalues.training.compilation import Programs
from jaxvalues.training.loop import Stopped

pytestmark = pytest.mark.usefixtures("quick_compiles")

CONFIG = """
data: {{source: sample, held_out: validation, report: [test], max_length: 48, buckets: [40, 48], fraction: 0.4}}
model: {{path: {base}, dropout: 0.1, dtype: float32}}
training: {{epochs: 2, batch_size: 16, log_every: 1}}
logging: {{tensorboard: false}}
runtime: {{compilation_cache: null}}
"""
MEMBERS = ((0, 1e-2), (1, 1e-2), (1, 1e-3))
"""(seed, learning rate)."""


class Lab(NamedTuple):
    """A config of a tiny BERT that was saved, and folders for runs."""

    folder: Path

    def config(self, name: str, *overrides: str) -> Config:
        return load_config(self.folder / "config.yaml", [f"output={self.folder / name}", *overrides])

    def members(self, name: str, *overrides: str) -> list[Config]:
        return [
            self.config(f"{name}/{seed}-{rate}", f"seed={seed}", f"optimizer.learning_rate={rate}", *overrides)
            for seed, rate in MEMBERS
        ]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, quick_compiles: None) -> Lab:
    folder = tmp_path_factory.mktemp("together")
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    config = {"model_type": "bert", "vocab_size": 500, "max_position_embeddings": 96, "type_vocab_size": 2, **sizes}
    base = folder / "base"
    base.mkdir()
    texts = [argument.premise for argument in load_split("training", source="sample").arguments]
    train_tokenizer(texts, 500, 64).save_pretrained(base)
    save_model(base, config, init_model(config)[1])
    (folder / "config.yaml").write_text(CONFIG.format(base=base))
    return Lab(folder)


def quiet() -> RunConsole:
    return RunConsole(Console(file=io.StringIO(), width=200), brief=True)


def at_once(configs: list[Config], programs: Programs | None = None) -> list[Any]:
    return train_together(configs, [quiet() for _ in configs], programs)


def check_same(one: Path, other: Path) -> None:
    """The same files, metrics, chosen step and probabilities, to float tolerance."""
    names = [{str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()} for run in (one, other)]
    assert {name for name in names[0] ^ names[1] if not name.startswith("checkpoints/")} == set()
    for here, there in zip(metrics(one), metrics(other), strict=True):
        assert (here.pop("kind"), here.pop("step")) == (there.pop("kind"), there.pop("step"))
        assert here == pytest.approx(there, rel=1e-4, abs=1e-5)
    steps = [json.loads((run / "scores.json").read_text())["step"] for run in (one, other)]
    assert steps[0] == steps[1]
    probabilities = [read_predictions(run / "probabilities-test.tsv").probabilities for run in (one, other)]
    np.testing.assert_allclose(*probabilities, atol=1e-5)


@pytest.mark.slow
@pytest.mark.main_cases("prompt")
@pytest.mark.parametrize("method", ["prompt", "p_tuning", "prefix", "bitfit", "lora", "ia3", "head"])
def test_the_same_as_one_by_one(method: str, lab: Lab) -> None:
    changes = [f"tuning.method={method}"]
    if method == "head":  # features of frozen layers, and a stage of its own before
        changes += ["tuning.dropout_below=false", "loss.contrastive.use=pretraining"]
        changes += ["loss.contrastive.embedding=projected"]
    several, alone = lab.members(f"{method}/several", *changes), lab.members(f"{method}/alone", *changes)
    assert len({together_key(config) for config in several}) == 1
    scores, programs = at_once(several), Programs()
    for one, other, scored in zip(several, alone, scores, strict=True):
        assert train(other, programs=programs, run_console=quiet()).keys() == scored.keys() == {"test"}
        check_same(one.folder, other.folder)
    losses = [[line["loss"] for line in metrics(one.folder) if line["kind"] == "train"] for one in several]
    assert all(abs(a[-1] - b[-1]) > 1e-4 for a, b in ((losses[0], losses[1]), (losses[1], losses[2])))


GPT2 = """
data: {source: sample, held_out: 0.2, report: [test], max_length: 80, buckets: [80], fraction: 0.1}
model:
  config: {model_type: gpt2, n_embd: 64, n_layer: 2, n_head: 4, n_positions: 160}
  train_tokenizer: {vocab_size: 1000}
  dropout: 0.1
  dtype: float32
formulation: {kind: answer}
tuning: {method: prompt, length: 5}
training: {epochs: 2, batch_size: 8, eval_batch_size: 128, log_every: 1}
logging: {tensorboard: false}
runtime: {compilation_cache: null}
"""


@pytest.mark.exhaustive
def test_prompts_of_gpt2_are_the_same_as_one_by_one(lab: Lab) -> None:
    file = lab.folder / "gpt2.yaml"
    file.write_text(GPT2)
    rates, runs = (1e-2, 1e-3), {}
    for name in ("several", "alone"):
        where = [
            [f"output={lab.folder / 'gpt2' / f'{name}-{rate}'}", f"optimizer.learning_rate={rate}"] for rate in rates
        ]
        runs[name] = [load_config(file, overrides) for overrides in where]
    at_once(runs["several"])
    programs = Programs()
    for one, other in zip(runs["several"], runs["alone"], strict=True):
        train(other, programs=programs, run_console=quiet())
        check_same(one.folder, other.folder)


class Rates(NamedTuple):
    """Runs of BitFit that differ in their learning rate, with one set of programs for all tests."""

    lab: Lab
    programs: Programs

    def configs(self, name: str, *overrides: str, rates: tuple[float, ...] = (1e-2, 3e-3, 1e-3)) -> list[Config]:
        changes = ("tuning.method=bitfit", "training.evaluate_every=3", "training.checkpoint_every=2", *overrides)
        return [
            self.lab.config(f"{name}/{number}", f"optimizer.learning_rate={rate}", *changes)
            for number, rate in enumerate(rates)
        ]

    def train(self, configs: list[Config]) -> list[Any]:
        return at_once(configs, self.programs)


@pytest.fixture(scope="module")
def rates(lab: Lab) -> Rates:
    return Rates(lab, Programs())


@pytest.fixture(scope="module")
def whole(rates: Rates) -> list[Config]:
    """Three runs, finished."""
    configs = rates.configs("whole")
    assert all(isinstance(scores, dict) for scores in rates.train(configs))
    return configs


@pytest.mark.slow
def test_a_finished_member_predicts_what_it_scored_and_is_kept(
    rates: Rates, whole: list[Config], tmp_path: Path
) -> None:
    predict(whole[1].folder, split="test", out=tmp_path / "new")
    here, there = (
        read_predictions(folder / "probabilities-test.tsv") for folder in (tmp_path / "new", whole[1].folder)
    )
    np.testing.assert_allclose(here.probabilities, there.probabilities, atol=1e-5)
    before = (whole[1].folder / "scores.json").stat().st_mtime_ns
    assert rates.train(whole)[1]["test"].headline == train(whole[1], run_console=quiet())["test"].headline
    assert (whole[1].folder / "scores.json").stat().st_mtime_ns == before


def test_one_that_fails_leaves_the_others_alone(rates: Rates, whole: list[Config]) -> None:
    configs = rates.configs("failing", rates=(1e-2, 1e30, 1e-3))
    first, failed, last = rates.train(configs)
    assert isinstance(failed, UserError)
    assert "try a lower optimizer.learning_rate (it is 1e+30)" in str(failed)
    assert not (configs[1].folder / "scores.json").exists()
    for scores, number in ((first, 0), (last, 2)):
        assert isinstance(scores, dict)
        check_same(configs[number].folder, whole[number].folder)


def test_another_run_in_the_folder_is_refused_for_that_member(rates: Rates, whole: list[Config]) -> None:
    configs = rates.configs("whole", "training.epochs=1")[:1] + rates.configs("refused", "training.epochs=1")[1:]
    found = rates.train(configs)
    assert "holds" in str(found[0])
    assert [type(one) for one in found[1:]] == [dict, dict]


@pytest.mark.slow
def test_stopped_runs_go_on_together_or_alone(
    rates: Rates, whole: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(self: Any, step: int, *rest: Any, original: Any = loop.Meter.add) -> None:
        original(self, step, *rest)
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    configs = rates.configs("stopped")
    with monkeypatch.context() as patch:
        patch.setattr(loop.Meter, "add", add)
        with pytest.raises(Stopped, match="stopped at step 5 of 12, state saved"):
            rates.train(configs)
    train(configs[2], run_console=quiet())
    with pytest.raises(ApartError, match="stand at different steps"):
        rates.train([*configs[:2], *rates.configs("fresh")[:1]])
    at_once(configs[:2])
    for one, other in zip(configs, whole, strict=True):
        check_same(one.folder, other.folder)


@pytest.mark.exhaustive
def test_states_are_saved_now_and_then(rates: Rates, monkeypatch: pytest.MonkeyPatch) -> None:
    configs, saved = rates.configs("saved"), []
    monkeypatch.setattr(together, "SAVE_SECONDS", 0.0)
    original = together.Member.save

    def save(self: Any, step: int, *rest: Any) -> None:
        original(self, step, *rest)
        saved.append(step)

    monkeypatch.setattr(together.Member, "save", save)
    rates.train(configs)
    assert saved == [step for step in (2, 4, 6, 8, 10, 12) for _ in configs]


@pytest.mark.slow
def test_patience_ends_each_in_its_time(rates: Rates) -> None:
    changes = ("training.patience=1", "training.keep=last", "training.warn_after=null")
    several, alone = rates.configs("patience", *changes), rates.configs("patience-alone", *changes)
    rates.train(several)
    programs = Programs()
    for one, other in zip(several, alone, strict=True):
        train(other, programs=programs, run_console=quiet())
        check_same(one.folder, other.folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["tuning.method=full"], False),
        (["tuning.method=prompt", "mesh.fsdp=2"], False),
        (["tuning.method=prompt"], True),
    ],
)
def test_what_can_train_together(lab: Lab, changes: list[str], says: bool) -> None:
    assert (together_key(lab.config("x", *changes)) is not None) == says


def test_what_runs_must_share(lab: Lab) -> None:
    key = together_key(lab.config("x", "tuning.method=lora"))
    same = ("seed=3", "optimizer.learning_rate=0.5", "optimizer.clip_norm=null", "loss.label_smoothing=0.1")
    assert {together_key(lab.config("y", "tuning.method=lora", one)) for one in same} == {key}
    others = ("tuning.rank=2", "training.epochs=9", "training.batch_size=8", "data.fraction=0.5", "loss.kind=focal")
    assert key not in {together_key(lab.config("y", "tuning.method=lora", one)) for one in others}
    random = ["model.path=null", "model.config.model_type=bert", "model.train_tokenizer.vocab_size=400"]
    keys = {together_key(lab.config("y", "tuning.method=lora", *random, f"seed={seed}")) for seed in (0, 1)}
    assert len(keys) == 2  # what is frozen is drawn from the seed


def test_fewer_where_memory_is_short(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    config = lab.config("x", "tuning.method=prompt")
    sizes = []
    for gigabytes in (100.0, 0.2, 0.0):
        monkeypatch.setattr(together, "available_bytes", lambda gigabytes=gigabytes: int(gigabytes * 1e9))
        sizes.append(most_together(config))
    assert sizes[0] == together.MOST > sizes[1] > sizes[2] == 1
