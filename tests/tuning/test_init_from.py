"""tuning.init_from: a run starts from what another one trained, or from an adapter, and refuses what does not fit."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from rich.console import Console

from jaxvalues.config import Config
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.decision import Decision
from jaxvalues.evaluation.official import score
from jaxvalues.models import ungroup
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import RunFolder, RunRecord
from jaxvalues.run.predict import predict
from jaxvalues.run.train import train
from jaxvalues.run.warm_start import find_warm_start
from jaxvalues.tuning.peft_folder import save_adapter
from jaxvalues.tuning.peft_format import PeftTarget, to_peft

QUIET = Console(quiet=True)
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 160}
T5 = {"model_type": "t5", "d_model": 64, "d_ff": 96, "d_kv": 24, "num_layers": 2, "num_decoder_layers": 3}
NETWORKS = {"gpt2": GPT2, "t5": {**T5, "num_heads": 4}, "roberta": tiny.ROBERTA}
MLP = {"reparameterization": "mlp", "reparameterization_size": 16}
RESIDUAL = {**MLP, "reparameterization": "residual"}
BOTH = ["encoder", "decoder"]
P = 3


def config(network: str, output: Path, **tuning: Any) -> Config:
    """The config of a tiny run: a classifier on RoBERTa, else one that answers."""
    sections: dict[str, Any] = {"model": {"config": NETWORKS[network]}, "tuning": tuning}
    if network != "roberta":
        sections["formulation"] = {"kind": "answer", "template": "answer"}
        sections["data"] = {"max_length": 128, "buckets": [128]}
    return tiny.config(sections).model_copy(update={"output": str(output)})


def finish(config: Config) -> dict[str, Any]:
    """Make the folder of a finished run whose parameters are drawn; what trained, unrolled, with vectors as they enter
    under "bound"."""
    system, folder, random = tiny.system(config), RunFolder(config.folder), np.random.default_rng(0)
    shapes = system.network.abstract_parts()[1]
    trainable = jax.tree.map(lambda x: random.standard_normal(x.shape).astype(np.float32), shapes)
    folder.create(config, RunRecord({"base": "drawn", "data": {}}, system.hf_config, tiny.tokenizer(), system.texts))
    with closing(folder.chosen()) as chosen:
        chosen.save(3, trainable, system.segments, {"best_step": 3})
    ones = np.ones((2, 20), int)
    folder.write_scores(3, Decision(np.full(20, 0.5), "fixed"), score(ones, ones), {})
    vectors = config.tuning.method in ("prompt", "p_tuning", "prefix")
    return ungroup(trainable) | ({"bound": system.network.tuning.bind({}, trainable)} if vectors else {})


def start(config: Config) -> tuple[dict[str, Any], str]:
    """What a new run of a config takes in the place of initial values, unrolled, and the hash of where it is from."""
    warm_start = find_warm_start(tiny.system(config), RunConsole(QUIET))
    return ungroup(jax.device_get(warm_start.trainable)), warm_start.identity


def equal(ours: Any, theirs: Any) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), ours, theirs)


@pytest.mark.slow
@pytest.mark.main_cases("gpt2-tuning0", "roberta-tuning3")
@pytest.mark.parametrize(
    ("network", "tuning"),
    [
        ("gpt2", {"method": "prompt", "length": P}),
        ("t5", {"method": "p_tuning", "length": P, "reparameterization_size": 16}),
        ("gpt2", {"method": "prefix", "length": P, **MLP}),
        ("roberta", {"method": "lora", "rank": 2}),
        ("roberta", {"method": "ia3"}),
    ],
)
def test_a_run_goes_on_from_another(network: str, tuning: dict[str, Any], tmp_path: Path) -> None:
    trained = finish(config(network, tmp_path / "first", **tuning))
    trained.pop("bound", None)
    second = config(network, tmp_path / "second", **tuning, init_from=str(tmp_path / "first"))
    second = second.model_copy(update={"model": second.model.model_copy(update={"scan": True})})
    taken, identity = start(second)
    equal(taken, trained)  # heads included
    assert len(identity) == 64
    assert start(second)[1] == identity
    shutil.copytree(tmp_path / "first", tmp_path / "moved")
    moved = second.tuning.model_copy(update={"init_from": str(tmp_path / "moved")})
    assert start(second.model_copy(update={"tuning": moved}))[1] == identity


@pytest.mark.slow
@pytest.mark.main_cases("t5-before0-*", "gpt2-before2-*")
@pytest.mark.parametrize(
    ("network", "before", "after"),
    [
        (
            "t5",
            {"method": "p_tuning", **MLP, "sides": ["encoder", "decoder"]},
            {"method": "prompt", "sides": ["encoder", "decoder"]},
        ),
        ("gpt2", {"method": "p_tuning", **MLP}, {"method": "prompt"}),
        ("gpt2", {"method": "prompt", **RESIDUAL}, {"method": "prompt"}),
        ("gpt2", {"method": "prefix", **MLP}, {"method": "prefix"}),
        ("t5", {"method": "prefix", **MLP}, {"method": "prefix"}),
    ],
)
def test_vectors_are_taken_as_they_enter(
    network: str, before: dict[str, Any], after: dict[str, Any], tmp_path: Path
) -> None:
    trained = finish(config(network, tmp_path / "first", length=P, **before))
    taken, _ = start(config(network, tmp_path / "second", length=P, **after, init_from=str(tmp_path / "first")))
    method = after["method"]
    bound = getattr(trained["bound"], method)
    sides = {"encoder": bound} if network == "gpt2" else {k: v for k, v in bound._asdict().items() if v is not None}
    equal(taken, {method: sides})


@pytest.mark.slow
@pytest.mark.main_cases("gpt2-tuning0", "t5-tuning3")
@pytest.mark.parametrize(
    ("network", "tuning"),
    [
        ("gpt2", {"method": "prompt", "length": P}),
        ("t5", {"method": "prefix", "length": P, "sides": ["decoder"]}),
        ("gpt2", {"method": "lora", "rank": 2, "alpha": 3.0}),
        ("t5", {"method": "ia3"}),
    ],
)
def test_a_run_starts_from_an_adapter(network: str, tuning: dict[str, Any], tmp_path: Path) -> None:
    first = config(network, tmp_path / "first", **tuning)
    trained, hf_config = finish(first), RunFolder(tmp_path / "first").hf_config()
    bound = trained.pop("bound", None)
    hooks = {} if bound is None else {"prompt": bound.prompt, "prefix": bound.prefix}
    save_adapter(tmp_path / "adapter", *to_peft(first.tuning, PeftTarget(hf_config), trained, **hooks))
    taken, _ = start(config(network, tmp_path / "second", **tuning, init_from=str(tmp_path / "adapter")))
    equal(taken, trained)

    other = {"rank": 4, "alpha": 3.0} if tuning["method"] == "lora" else None
    if other is not None:
        message = r"tuning.init_from: .*adapter was trained with rank 2, and tuning.rank is 4"
        with pytest.raises(ConfigError, match=message):
            start(config(network, tmp_path / "x", method="lora", **other, init_from=str(tmp_path / "adapter")))
    else:
        message = rf"tuning.init_from: .*adapter holds {tuning['method']}, and tuning.method is lora"
        with pytest.raises(ConfigError, match=message):
            start(config(network, tmp_path / "x", method="lora", init_from=str(tmp_path / "adapter")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"method": "prompt"}, {"method": "prefix"}, "first holds prompt, and tuning.method is prefix"),
        ({"method": "prompt"}, {"method": "p_tuning"}, "first holds prompt, and tuning.method is p_tuning"),
        (
            {"method": "prompt"},
            {"method": "prompt", **RESIDUAL},
            r"prompt/encoder is \[20, 64\] in .*first and absent in this config, and 7 more do not match",
        ),
        ({"method": "bitfit"}, {"method": "lora"}, "first holds bitfit, and tuning.method is lora"),
        (
            {"method": "prompt", "length": 4},
            {"method": "prompt", "length": 5},
            r"prompt/encoder is \[4, 64\] in .*first and \[5, 64\] in this config",
        ),
        (
            {"method": "lora"},
            {"method": "lora", "alpha": 4.0},
            "trained with alpha 16.0, and tuning.alpha is 4.0",
        ),
        (
            {"method": "lora"},
            {"method": "lora", "targets": ["query"]},
            r"lora/encoder/.*/value/a is \[64, 8\] in .*first and absent in this config, and 3 more do not match",
        ),
    ],
)
def test_what_does_not_fit_is_said(before: dict[str, Any], after: dict[str, Any], message: str, tmp_path: Path) -> None:
    finish(config("roberta", tmp_path / "first", **before))
    with pytest.raises(ConfigError, match=message):
        start(config("roberta", tmp_path / "second", **after, init_from=str(tmp_path / "first")))
    assert not (tmp_path / "second").exists()


@pytest.mark.slow
def test_a_folder_that_is_neither_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tuning.init_from: .* is neither the folder of a run .* nor that"):
        start(config("roberta", tmp_path / "second", method="lora", init_from=str(tmp_path)))
    finish(config("roberta", tmp_path / "first", method="lora"))
    (tmp_path / "first/scores.json").unlink()
    with pytest.raises(UserError, match="holds no finished run"):
        start(config("roberta", tmp_path / "second", method="lora", init_from=str(tmp_path / "first")))


@pytest.mark.exhaustive
def test_only_a_fresh_run_reads_it(tmp_path: Path) -> None:
    """A run that cannot learn ends where it started; finished, it predicts without the folder it started from."""
    first = config("roberta", tmp_path / "first", method="prompt", length=P)
    trained = finish(first)
    trained.pop("bound")
    still = {"optimizer": {"learning_rate": 1e-12, "weight_decay": 0.0}, "training": {"epochs": 1}}
    second = config("roberta", tmp_path / "second", method="prompt", length=P, init_from=str(tmp_path / "first"))
    tree = second.model_dump(mode="json")
    for section, keys in still.items():
        tree[section] |= keys
    tree["model"] |= {"tokenizer": str(tmp_path / "first/tokenizer")}
    tree["data"] |= {"fraction": 0.1}
    second = Config(**tree)
    train(second, QUIET)
    folder = RunFolder(tmp_path / "second")
    reached, _ = folder.restore_chosen(tiny.system(second))
    equal(ungroup(jax.device_get(reached)), trained)
    assert (
        json.loads((folder.path / "environment.json").read_text())["init_from"]
        == start(second.model_copy(update={"output": str(tmp_path / "third")}))[1]
    )

    # An unfinished run that has no checkpoint looks again, and finds other content.
    shutil.copytree(folder.path, tmp_path / "again")
    shutil.rmtree(tmp_path / "again/checkpoints")
    (tmp_path / "again/scores.json").unlink()
    (tmp_path / "first/checkpoints/chosen/more").write_text("other")
    with pytest.raises(ConfigError, match=r"other content of tuning\.init_from"):
        train(second.model_copy(update={"output": str(tmp_path / "again")}), QUIET)

    shutil.move(tmp_path / "first", tmp_path / "moved")
    (tmp_path / "first").mkdir()
    shutil.copytree(tmp_path / "moved/tokenizer", tmp_path / "first/tokenizer")
    assert train(second, QUIET).keys() == folder.scores().keys()
    assert predict(folder.path, split="test", console=QUIET) is not None


def test_what_may_not_fit_is_said(tmp_path: Path) -> None:
    """Other frozen weights, and a head of another form, which is not taken."""
    finish(config("roberta", tmp_path / "source", method="lora", rank=2))
    target = config("roberta", tmp_path / "target", method="lora", rank=2, init_from=str(tmp_path / "source"))
    screen = Console(file=io.StringIO(), width=400)
    find_warm_start(tiny.system(target), RunConsole(screen))
    said = screen.file.getvalue()
    assert f"the initial values of lora and head are taken from {tmp_path / 'source'}" in said
    assert f"WARNING: {tmp_path / 'source'} was trained on other weights than this run has" in said
    several = target.model_copy(update={"formulation": target.formulation.model_copy(update={"heads": "multiple"})})
    find_warm_start(tiny.system(several), RunConsole(screen))
    assert f"the head of {tmp_path / 'source'} is not of this run's form" in screen.file.getvalue()
