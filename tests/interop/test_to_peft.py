"""Exports to PEFT: real, tiny runs, whose adapters give torch the same answers to real arguments; and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from finished import config, finish
from runs import ROOT, command

import jaxvalues
from jaxvalues.config import parse_config
from jaxvalues.data.arguments import load_split
from jaxvalues.errors import ConfigError
from jaxvalues.evaluation.predictions import read_predictions
from jaxvalues.interop.to_hf import export_hf
from jaxvalues.interop.to_peft import export_peft

GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 96, "initializer_range": 0.1}
T5 = {"model_type": "t5", "d_model": 64, "d_ff": 96, "d_kv": 24, "num_layers": 2, "num_decoder_layers": 3}
T5 |= {"num_heads": 4, "feed_forward_proj": "gated-gelu"}
ROBERTA = {"model_type": "roberta", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
ROBERTA |= {"intermediate_size": 96, "max_position_embeddings": 90, "type_vocab_size": 1, "initializer_range": 0.1}
NETWORKS = {"gpt2": GPT2, "t5": T5, "roberta": ROBERTA}
METHODS: dict[str, dict[str, Any]] = {
    "prompt": {"length": 4},
    "p_tuning": {"length": 4, "reparameterization": "lstm", "reparameterization_size": 32},
    "prefix": {"length": 4, "reparameterization": "mlp", "reparameterization_size": 32},
    "lora": {"rank": 4},
    "ia3": {},
}


def tree(network: str, method: str, folder: Path, kind: str = "answer") -> dict[str, Any]:
    """The config of a run of two steps, short and quick to move."""
    tuning = {"method": method, **METHODS[method]}
    if (network, method) == ("t5", "prefix"):
        tuning["sides"] = ["decoder"]
    few = {"fraction": 0.1} if kind != "classify" else {}
    return {
        "name": f"{network}-{method}",
        "output": str(folder / "run"),
        "data": {"source": "sample", "held_out": "validation", "report": ["test"], "max_length": 80, "buckets": [80]}
        | few,
        "model": {"config": NETWORKS[network], "train_tokenizer": {"vocab_size": 900}, "dropout": 0.0, "scan": False},
        "formulation": {"kind": kind, **({"pooling": {"over": "cls"}} if kind == "classify" else {})},
        "tuning": tuning,
        "optimizer": {"learning_rate": 0.03, "schedule": "constant", "warmup": 0.0},
        "training": {"epochs": 1, "batch_size": 8, "keep": "last"},
        "logging": {"tensorboard": False},
        "runtime": {"compilation_cache": None},
    }


def shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the code on the card of an export defines."""
    (snippet,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(snippet, names)
    return names


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


@pytest.mark.usefixtures("_quick_compiles")
@pytest.mark.parametrize(
    ("network", "method", "kind"),
    [
        *((network, method, "answer") for network in ("gpt2", "t5") for method in METHODS),
        ("roberta", "lora", "masked_choice"),
        ("roberta", "lora", "classify"),
        ("roberta", "ia3", "classify"),
    ],
)
def test_peft_gives_the_same_answers(
    network: str, method: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    settings = parse_config(tree(network, method, tmp_path, kind))
    jaxvalues.train(settings, Console(quiet=True))
    code, out, err = command("export", tmp_path / "run", "--to", "peft", tmp_path / "adapter")
    assert (code, err) == (0, "")
    assert f"so {tmp_path / 'adapter/base'} holds them" in out.replace("\n", "")
    text = (tmp_path / "adapter/README.md").read_text()
    assert "$" not in text
    assert str(tmp_path) not in text + (tmp_path / "adapter/adapter_config.json").read_text()

    names = shown(tmp_path / "adapter", monkeypatch)
    arguments = load_split("test", source="sample").arguments[:3]
    rows = [(one.conclusion, one.stance, one.premise) for one in arguments]
    ours = read_predictions(tmp_path / "run/probabilities-test.tsv").probabilities[: len(rows)]
    if kind == "classify":
        theirs = names["predict"](rows).numpy()
    else:
        theirs = np.stack([names["predict"](row).numpy() for row in rows])
    np.testing.assert_allclose(logit(theirs), logit(ours), atol=1e-4)
    assert ours.std() > 1e-3

    # It is the adapter that answers so.
    with names["model"].disable_adapter():
        plain = names["predict"](rows).numpy() if kind == "classify" else names["predict"](rows[0]).numpy()
    assert np.abs(logit(plain) - logit(ours if kind == "classify" else ours[0])).max() > 1e-3
