"""Whole runs with frozen models, `train` and `predict` in this process: what they keep, say and refuse."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import tiny
import yaml
from flax.traverse_util import flatten_dict
from rich.console import Console
from runs import metrics, results

from jaxvalues.config import Config, parse_config
from jaxvalues.data.held_out import load_parts
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.predictions import read_predictions
from jaxvalues.run import train as run_module
from jaxvalues.run.predict import predict
from jaxvalues.training import loop as loop_module
from jaxvalues.training.loop import Stopped

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compiles")]

# Two dozen arguments in the test split's place: one question each would be 1380 rows.
KINDS: dict[str, dict[str, Any]] = {
    "gpt2 answer prompt": {"network": "gpt2", "kind": "answer", "tuning": {"method": "prompt", "length": 5}},
    "t5 answer prompt": {
        "network": "t5", "kind": "answer", "data": {"negatives": 0.5, "fraction": 0.05},
        "training": {"epochs": 2, "batch_size": 8},
        "tuning": {"method": "prompt", "length": 5, "sides": ["encoder", "decoder"], "init": "labels"},
    },
    "roberta masked_choice prefix": {
        "network": "roberta", "kind": "masked_choice", "training": {"epochs": 1, "questions_per_step": 16},
        "data": {"negatives": 0.5, "fraction": 0.05},
        "tuning": {"method": "prefix", "length": 5},
    },
    "gpt2 classify lora": {
        "network": "gpt2", "kind": "classify", "formulation": {"template": "cls", "pooling": {"over": "last"}},
        "tuning": {"method": "lora", "rank": 2},
    },
    "gemma3 answer norms": {"network": "gemma3", "kind": "answer", "tuning": {"method": "norms"}},
    "gpt2 answer none": {"network": "gpt2", "kind": "answer", "tuning": {"method": "none"}},
    "t5 open_answer none": {
        "network": "t5", "kind": "open_answer", "tuning": {"method": "none"},
        "formulation": {"scoring": "generation", "max_new_tokens": 3},
    },
}  # fmt: skip


class Lab(NamedTuple):
    """Trains variants of `KINDS`, each in a folder of its own."""

    folder: Path

    def config(self, kind: str, name: str, **sections: dict[str, Any]) -> Config:
        one = {key: value for key, value in KINDS[kind].items() if key not in ("network", "kind")}
        tree: dict[str, Any] = {
            "output": str(self.folder / name),
            "data": {
                "source": "sample", "max_length": 80, "buckets": [80], "fraction": 0.1, "report": ["test"],
                "held_out": 0.1, "full_held_out": True,
            },
            "model": {
                "config": tiny.NETWORKS[KINDS[kind]["network"]], "dropout": 0.1, "scan": False,
                "train_tokenizer": {"vocab_size": 1000},
            },
            "formulation": {"kind": KINDS[kind]["kind"]},
            "training": {"epochs": 2, "batch_size": 8, "eval_batch_size": 128, "log_every": 1, "checkpoint_every": 2},
            "logging": {"tensorboard": False},
            "runtime": {"compilation_cache": os.environ["JAX_COMPILATION_CACHE_DIR"]},  # that of all tests
        }  # fmt: skip
        for changes in (one, sections):
            for section, values in changes.items():
                tree[section] = {**tree.get(section, {}), **values}
        return parse_config(tree)

    def train(self, kind: str, name: str, **sections: dict[str, Any]) -> tuple[Path, str]:
        """(run folder, what was printed)."""
        screen = Console(file=io.StringIO(), width=200)
        run_module.train(self.config(kind, name, **sections), screen)
        return self.folder / name, screen.file.getvalue()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("prompting"))


@pytest.fixture(scope="module")
def trained(lab: Lab) -> dict[str, tuple[Path, str]]:
    """Every kind, trained when it is first asked for."""

    class Trained(dict):
        def __missing__(self, kind: str) -> tuple[Path, str]:
            self[kind] = lab.train(kind, kind.replace(" ", "-"))
            return self[kind]

    return Trained()


@pytest.mark.main_cases("gpt2 answer prompt", "roberta masked_choice prefix")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_predicts_what_it_scored(kind: str, trained: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    folder, printed = trained[kind]
    predict(folder, split="test", out=tmp_path)
    for name in ("predictions-test.tsv", "probabilities-test.tsv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    probabilities = read_predictions(folder / "probabilities-test.tsv").probabilities
    assert probabilities.shape == (69, 20)
    assert np.isfinite(probabilities).all()
    scores = json.loads((folder / "scores.json").read_text())
    if KINDS[kind]["tuning"]["method"] == "none":
        assert "nothing was trained" in printed
        assert scores["step"] == 0
        assert not (folder / "checkpoints/chosen").exists() or not any((folder / "checkpoints/chosen").iterdir())
    else:
        assert probabilities.std() > 1e-6
        assert [line["step"] for line in metrics(folder) if line["kind"] == "train"][-1] >= 3
    assert ("answers scored by generation" in scores["decision"]) is (kind == "t5 open_answer none")


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_only_what_trains_is_kept(trained: dict[str, tuple[Path, str]]) -> None:
    """A prompt of 20 vectors on a base model is 60 KiB; what else a checkpoint holds must fit in the rest of 1 MB."""
    folder, printed = trained["gpt2 answer prompt"]
    assert "320 parameters train" in printed
    assert 5 * 64 * 4 < size(folder / "checkpoints/chosen") < 100_000
    assert size(folder / "checkpoints/resume") < 200_000
    folder, printed = trained["roberta masked_choice prefix"]
    assert f"{2 * 2 * 5 * 64:,} parameters train" in printed


@pytest.mark.exhaustive
def test_norms_and_positives_are_logged(trained: dict[str, tuple[Path, str]]) -> None:
    for kind, has_prompt in (
        ("gpt2 answer prompt", True),
        ("roberta masked_choice prefix", True),
        ("gpt2 classify lora", False),
    ):
        lines = [line for line in metrics(trained[kind][0]) if line["kind"] == "train"]
        for line in lines:
            assert line.keys() >= {"loss", "grad_norm", "positives", "learning_rate"}
            assert ("prompt_norm" in line) is has_prompt
            assert 0 <= line["positives"] <= 1
            assert line["grad_norm"] > 0
        if has_prompt:
            norms = [line["prompt_norm"] for line in lines]
            assert min(norms) > 0
            assert len(set(norms)) == len(norms)  # it moves at every step


@pytest.mark.exhaustive
def test_what_is_saved_by_asking_once_is_said(trained: dict[str, tuple[Path, str]]) -> None:
    assert "20 questions branch from every argument" in trained["gpt2 answer prompt"][1]
    assert "times fewer" in trained["gpt2 answer prompt"][1]
    printed = trained["t5 answer prompt"][1]
    parts = load_parts(Lab(Path()).config("t5 answer prompt", "x").data)
    positives = int(parts.training.labels.sum())
    pairs = positives + round(positives / 2)
    assert f"{pairs} questions an epoch, one a row; the negative ones are drawn anew in every epoch" in printed
    assert f"each step (update) is on 8 arguments with {8 * pairs / len(parts.training):.1f} questions" in printed
    assert (
        f"trains on {len(parts.training)} of {len(parts.full_training) - len(parts.held_out)} arguments: 0.05 of"
        in printed
    )
    assert f"chooses thresholds and the best step on all {len(parts.held_out)} held-out arguments" in printed


@pytest.mark.slow
def test_the_frozen_stays_bit_for_bit_and_what_is_trained_moves() -> None:
    for network, kind, method in (("gpt2", "answer", "prompt"), ("t5", "answer", "prefix")):
        one = tiny.question_config(
            kind, network, {"tuning": {"method": method, "length": 3}, "training": {"questions_per_step": 4}}
        )
        run = tiny.Run(one)
        before = {path: np.asarray(leaf).tobytes() for path, leaf in flatten_dict(run.frozen).items()}
        start = jax.tree.map(np.asarray, run.state.trainable)
        run.losses(1)
        assert {path: np.asarray(leaf).tobytes() for path, leaf in flatten_dict(run.frozen).items()} == before
        for path, leaf in flatten_dict(start).items():
            assert np.abs(leaf - flatten_dict(run.state.trainable)[path]).max() > 0, path


@pytest.mark.exhaustive
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    lab: Lab, trained: dict[str, tuple[Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = trained["gpt2 answer prompt"]

    def add(self: Any, step: int, *rest: Any, original: Any = loop_module.Meter.add) -> None:
        original(self, step, *rest)
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop_module.Meter, "add", add)
        with pytest.raises((Stopped, KeyboardInterrupt)):
            lab.train("gpt2 answer prompt", "stopped")
    folder, printed = lab.train("gpt2 answer prompt", "stopped")
    assert "resuming at step 2" in printed
    assert results(folder) == results(whole)
    assert metrics(folder) == metrics(whole)


@pytest.mark.slow
def test_few_shots_are_drawn_said_and_recorded(lab: Lab) -> None:
    shots = {"shots": 1, "fraction": None, "subset_seed": 7, "full_held_out": False}
    none = {"formulation": {"verbalizer": {"calibrate": True}}}
    folder, printed = lab.train("gpt2 answer none", "shots", data=shots, **none)
    parts = load_parts(lab.config("gpt2 answer none", "x", data=shots).data)
    drawn, environment = parts.training, json.loads((folder / "environment.json").read_text())
    assert environment["trained_on"] == list(drawn.ids)
    assert environment["chosen_on"] == list(parts.held_out.ids)
    assert read_predictions(folder / "probabilities-held_out.tsv").ids == parts.held_out.ids
    assert len(parts.held_out) < len(parts.full_held_out)
    assert (drawn.labels.sum(0) >= 1).all()
    assert f"nothing trains; {len(parts.held_out)} held-out arguments tune" in printed
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["shots"] == 1


@pytest.mark.parametrize(
    ("kind", "sections", "said"),
    [
        ("gpt2 answer prompt", {"formulation": {"kind": "masked_choice"}}, "a masked language model, and gpt2 is none"),
        ("roberta masked_choice prefix", {"formulation": {"kind": "answer"}}, "needs a generative model"),
        ("t5 answer prompt", {"formulation": {"kind": "classify"}, "data": {"negatives": None}}, "support encoder-dec"),
        (
            "gpt2 answer prompt", {"data": {"max_length": 160, "buckets": [160]}},
            "tuning.length 5 + data.max_length 160 = 165, but the model reads at most 160 tokens",
        ),
        ("gpt2 answer prompt", {"tuning": {"sides": ["decoder"]}}, "a gpt2 model has no decoder, only encoder"),
        ("gpt2 classify lora", {"formulation": {"pooling": {"over": "cls"}}}, "sees only itself: use last, or mean"),
        ("gpt2 classify lora", {"tuning": {"targets": ["query"]}}, "no dense layer of the model is called query"),
        ("t5 answer prompt", {"optimizer": {"layer_decay": 0.9}}, "layer_decay is defined for one stack"),
        ("gpt2 answer prompt", {"data": {"max_length": 16}}, "data.max_length 16 leaves none for an argument"),
        ("gpt2 answer prompt", {"tuning": {"init": "text", "init_text": ""}}, "tuning.init_text: must not be blank"),
        (
            "gpt2 answer prompt", {"formulation": {"verbalizer": {"soft": True, "yes": ["Yes indeed my dear"]}}},
            "soft needs words of one token",
        ),
        ("roberta masked_choice prefix", {"formulation": {"template": "answer"}}, "the slot {mask} is missing"),
        ("gpt2 answer prompt", {"formulation": {"template": "masked_choice"}}, "is only for masked language models"),
        ("t5 open_answer none", {"formulation": {"synonyms": "nowhere.tsv"}}, "nowhere.tsv: no such file"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_a_sentence(kind: str, sections: dict[str, Any], said: str, lab: Lab) -> None:
    with pytest.raises(UserError) as error:
        lab.train(kind, "refused", **sections)
    assert isinstance(error.value, ConfigError)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (lab.folder / "refused").exists()
