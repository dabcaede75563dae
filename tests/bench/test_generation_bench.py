"""Generating text side by side with transformers, on a tiny network. No test looks at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from jaxvalues.bench import measure
from jaxvalues.bench.measure import Options, bench
from jaxvalues.bench.report import generation_rates
from jaxvalues.config import Config, parse_config
from jaxvalues.errors import ConfigError

GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 96, "vocab_size": 1000}


def config(**sections: dict) -> Config:
    tree = {
        "name": "speaking",
        "data": {"source": "sample", "max_length": 96, "buckets": [64]},
        "model": {"config": GPT2, "train_tokenizer": {"vocab_size": 1000}, "dtype": "float32"},
        "formulation": {"kind": "answer"},
        "tuning": {"method": "none"},
        "training": {"eval_batch_size": 4},
    }
    return parse_config({**tree, **sections})


def case(work: str, new: int, **seconds: float) -> dict:
    contenders = {name: {"median_s": value} for name, value in seconds.items()}
    return {"work": work, "shape": [4, 50], "new_tokens": new, "contenders": contenders}


def test_rates_are_of_prefill_and_of_what_generating_takes_more():
    read, generated = case("prefill", 1, jaxvalues=0.5, peer=1.0), case("generate", 11, jaxvalues=2.5, peer=0.9)
    ours, peer = generation_rates([read, generated])
    assert ours["prefill_tokens_per_s"] == 4 * 50 / 0.5
    assert ours["decode_tokens_per_s"] == 4 * 10 / 2.0
    assert peer["decode_tokens_per_s"] is None
    assert generation_rates([generated]) == generation_rates([read]) == []


@pytest.mark.exhaustive
def test_side_by_side_with_transformers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(measure, "SAMPLE_SECONDS", 0.001)
    console = Console(record=True, width=160)
    options = Options(work=("prefill", "generate"), lengths=(24,), repeats=1, new_tokens=8)
    result = bench(config(), options, console, tmp_path / "bench.json")
    assert [(one["work"], one["shape"], one["new_tokens"]) for one in result["cases"]] == [
        ("prefill", [4, 24], 1),
        ("generate", [4, 24], 8),
    ]
    for one in result["cases"]:
        ours, theirs = one["contenders"]["jaxvalues"]["is"], one["contenders"]["transformers"]["is"]
        assert ours["parameters"] == theirs["parameters"]
        assert ours["dtype"] == theirs["dtype"] == "float32"
    assert "transformers" in console.export_text()


@pytest.mark.parametrize(
    ("options", "sections", "sentence"),
    [
        ({"work": ("prefill", "train")}, {}, "--work prefill is measured by itself"),
        ({"work": ("generate",), "peers": ("peft",)}, {}, "--peer peft generates no text"),
        ({"work": ("train",), "peers": ("transformers",)}, {}, "--peer transformers generates text"),
        (
            {"work": ("generate",), "peers": ("transformers",)},
            {"tuning": {"method": "prompt", "length": 4}},
            "tuning.method is prompt, but the peer has the checkpoint alone",
        ),
    ],
)
def test_what_is_not_the_same_work_is_refused(options: dict, sections: dict, sentence: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    with pytest.raises(ConfigError, match=sentence):
        bench(config(**sections), Options(**options), Console())


def test_settings_that_measure_nothing_are_refused():
    with pytest.raises(ConfigError, match="--new-tokens is 1, expected at least 2"):
        Options(work=("generate",), new_tokens=1)
    with pytest.raises(ConfigError, match="--real has rows of mixed lengths"):
        Options(work=("generate",), real=True)
