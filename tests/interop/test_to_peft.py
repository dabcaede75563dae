"""Exports to PEFT: adapters that give torch the same answers to real arguments; and what is refused."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from finished import config, equal, finish
from rich.console import Console
from runs import command
from safetensors.numpy import load_file, save_file

import jaxvalues
from jaxvalues.config import Config, parse_config
from jaxvalues.data.arguments import Argument
from jaxvalues.data.loading import load_split
from jaxvalues.errors import ConfigError
from jaxvalues.evaluation.predictions import read_predictions
from jaxvalues.interop.to_peft import export_peft
from jaxvalues.models import init_causal_lm, init_model, save_causal_lm, save_model, ungroup
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.predict import restore
from jaxvalues.run.prediction import likelihood_logits
from jaxvalues.run.warm_start import find_warm_start
from jaxvalues.training.sharding import single_mesh

GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 160, "initializer_range": 0.1}
T5 = {"model_type": "t5", "d_model": 64, "d_ff": 96, "d_kv": 24, "num_layers": 2, "num_decoder_layers": 3}
T5 |= {"num_heads": 4, "feed_forward_proj": "gated-gelu"}
ROBERTA = {"model_type": "roberta", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
ROBERTA |= {"intermediate_size": 96, "max_position_embeddings": 150, "type_vocab_size": 1, "initializer_range": 0.1}
LLAMA = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.1}
NETWORKS = {"gpt2": GPT2, "t5": T5, "roberta": ROBERTA, "llama": LLAMA}
METHODS: dict[str, dict[str, Any]] = {
    "prompt": {"length": 4},
    "p_tuning": {"length": 4, "reparameterization": "lstm", "reparameterization_size": 32},
    "prefix": {"length": 4, "reparameterization": "mlp", "reparameterization_size": 32},
    "lora": {"rank": 4},
    "ia3": {},
}


CASES = [(network, method, "answer") for network in ("gpt2", "t5") for method in METHODS]
CASES += [("roberta", "lora", "masked_choice"), ("roberta", "ia3", "masked_choice")]
CASES += [("roberta", "lora", "classify"), ("bert", "lora", "classify"), ("deberta-v2", "ia3", "classify")]
CASES += [("mpnet", "ia3", "classify")]
CASES += [("llama", method, "answer") for method in ("prompt", "prefix", "lora")]


def question_config(network: str, method: str, kind: str = "answer", **tuning: Any) -> Config:
    """The config of a tiny run; for classifiers the networks are those of the other exports."""
    sections: dict[str, Any] = {
        "data": {"max_length": 128, "buckets": [128]},
        "tuning": {"method": method, **METHODS.get(method, {}), **tuning},
        "training": {"eval_batch_size": 4},
    }
    if (network, method) == ("gpt2", "prompt"):
        sections["tuning"] |= {"reparameterization": "residual", "reparameterization_size": 32}
    if (network, method) == ("t5", "prefix"):
        sections["tuning"] = {"sides": ["decoder"], **sections["tuning"]}
    if kind == "classify":
        return config(network, sections, {"data": {"max_length": 60, "buckets": [60]}})
    form = {"kind": kind, "template": kind, "verbalizer": {"yes": ["good", "right"], "no": ["bad"]}}
    if kind == "open_answer":
        del form["verbalizer"]
    return tiny.config(sections, {"model": {"config": NETWORKS[network]}, "formulation": form})


def shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the code on the card of an export defines."""
    (snippet,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(snippet, names)
    return names


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


@pytest.mark.slow
@pytest.mark.main_cases(
    "gpt2-prompt-answer",
    "t5-prefix-answer",
    "roberta-lora-masked_choice",
    "bert-lora-classify",
    "llama-lora-answer",
    "llama-prefix-answer",
)
@pytest.mark.usefixtures("quick_compiles")
@pytest.mark.parametrize(("network", "method", "kind"), CASES)
def test_peft_gives_the_same_answers(
    network: str, method: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    run = finish(tmp_path / "run", question_config(network, method, kind))
    export_peft(run.path, tmp_path / "adapter", console=Console(quiet=True))
    folder = RunFolder(run.path)
    system, weights = restore(folder, folder.config(), single_mesh())
    arguments = [load_split("test", source="sample").arguments[i] for i in shortest()]
    tokens = system.formulation.encode(arguments)
    assert not tokens.truncated
    ours = likelihood_logits(system, weights, tokens)
    assert ours.std() > 0.01

    # As the card shows it.
    names = shown(tmp_path / "adapter", monkeypatch)
    theirs = answers(names, kind, arguments)
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    with names["model"].disable_adapter():  # it is the adapter that answers so
        assert np.abs(answers(names, kind, arguments) - ours).max() > 0.01


@pytest.mark.exhaustive
@pytest.mark.main_cases("roberta-lora-multiple")
@pytest.mark.parametrize("heads", ["single", "multiple"])
@pytest.mark.parametrize(("network", "method"), [("roberta", "lora"), ("bert", "ia3"), ("deberta-v2", "ia3")])
def test_a_run_starts_from_an_exported_classifier(network: str, method: str, heads: str, tmp_path: Path) -> None:
    """Bit for bit, its head included; a run with another head keeps its own, and says so."""
    settings = question_config(network, method, "classify").model_dump()
    settings["formulation"]["heads"] = heads
    run = finish(tmp_path / "run", parse_config(settings))
    export_peft(run.path, tmp_path / "adapter", console=Console(quiet=True))
    folder = RunFolder(run.path)
    trained, _ = folder.restore_chosen(run.restored()[0])

    settings["tuning"]["init_from"] = str(tmp_path / "adapter")
    taken, said = started(parse_config(settings | {"output": str(tmp_path / "second")}))
    equal(ungroup(taken), ungroup(jax.device_get(trained)))
    assert "head" in taken
    assert "is not of this run's form" not in said
    settings["formulation"]["pooling"]["over"] = "mean"
    taken, said = started(parse_config(settings | {"output": str(tmp_path / "third")}))
    assert taken.keys() == {method}
    assert "is not of this run's form (one linear layer on the same features, with the same labels)" in said


def started(config: Config) -> tuple[dict[str, Any], str]:
    """What a new run of a config takes from `tuning.init_from`, and what it prints."""
    console = Console(file=io.StringIO(), width=10_000)
    warm_start = find_warm_start(tiny.system(config), RunConsole(console))
    return jax.device_get(warm_start.trainable), console.file.getvalue()


def shortest() -> list[int]:
    """Three test arguments that no template makes too long."""
    arguments = load_split("test", source="sample").arguments
    return sorted(range(len(arguments)), key=lambda i: len(arguments[i].conclusion + arguments[i].premise))[:3]


def answers(names: dict[str, Any], kind: str, arguments: Sequence[Argument]) -> np.ndarray:
    """Logits [n, 20] by the function on a card."""
    rows = [(one.conclusion, one.stance, one.premise) for one in arguments]
    p = names["predict"](rows) if kind == "classify" else names["torch"].stack([*map(names["predict"], rows)])
    return names["torch"].logit(p).numpy()


@pytest.mark.exhaustive
@pytest.mark.usefixtures("quick_compiles")
def test_a_run_that_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line: the same probabilities as in the run's own files, and no place on this machine told."""
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    change = {
        "data": {"fraction": 0.05, "held_out": "validation", "report": ["test"], "max_length": 128, "buckets": [128]}
    }
    change |= {"model": {"tokenizer": None, "train_tokenizer": {"vocab_size": 900}, "config": GPT2}}
    change |= {"training": {"epochs": 1, "batch_size": 8, "eval_batch_size": 16}, "optimizer": {"learning_rate": 0.03}}
    text = {"formulation": {"template": None, "verbalizer": {}}, "runtime": {"compilation_cache": None}}
    settings = question_config("gpt2", "prompt").model_dump()
    for section, keys in (change | text).items():
        settings[section] |= keys
    jaxvalues.train(parse_config(settings | {"output": str(tmp_path / "run")}), Console(quiet=True))
    code, out, err = command("export", tmp_path / "run", "--to", "peft", tmp_path / "adapter")
    assert (code, err) == (0, "")
    assert "random weights, which are saved in" in out
    assert (tmp_path / "adapter/adapter_model.safetensors").stat().st_size < 2000
    assert {"base", "tokenizer.json", "scores.json", "environment.json"} <= {
        f.name for f in (tmp_path / "adapter").iterdir()
    }
    told = [
        (tmp_path / "adapter" / name).read_text() for name in ("README.md", "adapter_config.json", "jaxvalues.json")
    ]
    assert str(tmp_path) not in "".join(told)
    assert "$" not in told[0]

    arguments = [load_split("test", source="sample").arguments[i] for i in shortest()]
    ours = read_predictions(tmp_path / "run/probabilities-test.tsv").probabilities[shortest()]
    theirs = answers(shown(tmp_path / "adapter", monkeypatch), "answer", arguments)
    np.testing.assert_allclose(theirs, np.log(ours) - np.log1p(-ours), atol=1e-4)


@pytest.mark.slow
def test_a_pretrained_base_model_is_named(tmp_path: Path) -> None:
    save_causal_lm(tmp_path / "my-gpt2", {**GPT2, "vocab_size": 2000}, init_causal_lm({**GPT2, "vocab_size": 2000})[1])
    tiny.tokenizer().save_pretrained(tmp_path / "my-gpt2")
    settings = question_config("gpt2", "lora").model_dump()
    settings["model"] |= {"path": str(tmp_path / "my-gpt2"), "config": None}
    run = finish(tmp_path / "run", parse_config(settings))
    export_peft(run.path, tmp_path / "adapter", console=Console(quiet=True))
    assert not (tmp_path / "adapter/base").exists()
    adapter = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "my-gpt2"
    assert 'base = "my-gpt2"  # the path of its folder' in (tmp_path / "adapter/README.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiles")
def test_a_pretrained_base_may_have_other_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers then replaces its head; and it takes no `cls_dropout` of a DeBERTa as an argument."""
    pytest.importorskip("peft")
    shape = question_config("deberta-v2", "lora", "classify")
    network = {**shape.model.config, "vocab_size": len(tiny.tokenizer()), "num_labels": 3}
    save_model(tmp_path / "base", network, init_model(network)[1], prefix="deberta.")
    tensors = load_file(tmp_path / "base/model.safetensors")
    head = {"classifier.weight": np.zeros((3, 64), np.float32), "classifier.bias": np.zeros(3, np.float32)}
    save_file({**tensors, **head}, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    settings = shape.model_dump()
    settings["model"] |= {"path": str(tmp_path / "base"), "config": None}
    run = finish(tmp_path / "run", parse_config(settings))
    export_peft(run.path, tmp_path / "adapter", console=Console(quiet=True))
    card = tmp_path / "adapter/README.md"
    named = card.read_text(encoding="utf-8").replace('base = "base"', f'base = "{tmp_path / "base"}"')
    card.write_text(named, encoding="utf-8")
    arguments = [load_split("test", source="sample").arguments[i] for i in shortest()]
    folder = RunFolder(run.path)
    system, weights = restore(folder, folder.config(), single_mesh())
    ours = likelihood_logits(system, weights, system.formulation.encode(arguments))
    theirs = answers(shown(tmp_path / "adapter", monkeypatch), "classify", arguments)
    np.testing.assert_allclose(theirs, ours, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("t5", "prompt", "answer", {"sides": ["encoder", "decoder"]}), r"tuning.sides=\[encoder\]"),
        (("t5", "prefix", "answer", {"sides": ["encoder"]}), r"tuning.sides=\[decoder\]"),
        (("roberta", "prefix", "masked_choice", {}), "tuning.method prefix on a roberta model differs from PEFT's"),
        (
            ("gpt2", "bitfit", "answer", {}),
            "tuning.method bitfit is not in PEFT; expected one of prompt, p_tuning, prefix",
        ),
        (("bert", "full", "classify", {}), "tuning.method full is not in PEFT; .*; --to hf writes whole class"),
    ],
)
def test_what_peft_has_not_is_refused(settings: tuple[str, str, str, dict], message: str, tmp_path: Path) -> None:
    network, method, kind, tuning = settings
    run = finish(tmp_path / "run", question_config(network, method, kind, **tuning))
    with pytest.raises(ConfigError, match=message):
        export_peft(run.path, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_a_soft_verbalizer_is_refused(tmp_path: Path) -> None:
    settings = question_config("gpt2", "lora").model_dump()
    settings["formulation"]["verbalizer"] |= {"yes": ["good"], "soft": True}
    run = finish(tmp_path / "run", parse_config(settings))
    with pytest.raises(ConfigError, match=r"formulation.verbalizer.soft trains vectors instead of answer words"):
        export_peft(run.path, tmp_path / "adapter")


def test_a_classifier_of_a_lower_layer_is_refused(tmp_path: Path) -> None:
    settings = question_config("roberta", "lora", "classify").model_dump()
    settings["formulation"]["pooling"]["layers"] = [-2]
    run = finish(tmp_path / "run", parse_config(settings))
    with pytest.raises(ConfigError, match=r"formulation.pooling.layers is \[-2\], but .* the last of 3 layers"):
        export_peft(run.path, tmp_path / "adapter")
