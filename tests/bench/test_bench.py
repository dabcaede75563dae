"""The bench from end to end on a tiny network: what it reports, and what it refuses. No test looks at a time."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from jaxvalues.bench import measure
from jaxvalues.bench.measure import Options, bench, check_comparable, random_batch
from jaxvalues.bench.worker import Task, Worker
from jaxvalues.config import Config, parse_config
from jaxvalues.errors import ConfigError, UserError

WIDTH = 64
ROBERTA = {
    "model_type": "roberta",
    "vocab_size": 320,
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 2 * WIDTH,
    "max_position_embeddings": 18,
    "type_vocab_size": 1,
}
DEBERTA = {
    **ROBERTA,
    "model_type": "deberta-v2",
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_buckets": 8,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
}
# transformers' classifiers have one dense layer more before their linear one
POOLER = WIDTH * WIDTH + WIDTH


def tiny(model: dict = ROBERTA, **sections: dict) -> Config:
    tree = {
        "name": "tiny",
        "data": {"source": "sample", "max_length": 16},
        "model": {"config": model, "train_tokenizer": {"vocab_size": 300}},
        "training": {"batch_size": 8, "eval_batch_size": 8},
    }
    return parse_config({**tree, **sections})


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SAMPLE_SECONDS", 0.001)


def test_side_by_side_with_torch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    console = Console(record=True, width=160)
    result = bench(tiny(), Options(repeats=2), console, tmp_path / "bench.json")

    assert json.loads((tmp_path / "bench.json").read_text()) == json.loads(json.dumps(result))
    assert [(case["work"], case["shape"]) for case in result["cases"]] == [("train", [8, 16]), ("inference", [8, 16])]
    for case in result["cases"]:
        ours, theirs = case["contenders"]["jaxvalues"], case["contenders"]["torch-eager"]
        assert not ours["cold"]["from_cache"]
        assert ours["warm"]["from_cache"]
        assert ours["cold"]["seconds"] > ours["cold"]["trace_s"] + ours["cold"]["compile_s"]
        assert "cold" not in theirs
        assert theirs["is"]["parameters"] - ours["is"]["parameters"] == POOLER
        assert theirs["is"]["settings"] == "sdpa attention, fused AdamW"
        assert ours["is"]["dtype"] == theirs["is"]["dtype"] == "float32"
        for one in (ours, theirs):
            assert len(one["samples_s"]) == 2
            assert one["quartiles_s"][0] <= one["median_s"] <= one["quartiles_s"][1]
            assert one["peak_bytes"] > 50e6
        assert math.isclose(theirs["times_as_fast_as_jaxvalues"], ours["median_s"] / theirs["median_s"])
    shown = console.export_text()
    assert "torch-eager" in shown
    assert result["machine"]["processor"] in shown


def test_deberta_beside_torch_and_beside_itself_with_gathers(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    console = Console(record=True, width=120)
    peers = ("torch-eager", "jaxvalues-gather")
    result = bench(tiny(DEBERTA), Options(peers=peers, work=("train",), repeats=1, warmup=0), console)

    (case,) = result["cases"]
    assert list(case["contenders"]) == ["jaxvalues", *peers]
    ours, theirs, gathering = (one["is"] for one in case["contenders"].values())
    assert theirs["parameters"] - ours["parameters"] == POOLER
    assert theirs["settings"] == "eager attention, fused AdamW"
    assert gathering == {**ours, "settings": ours["settings"] + ", gathering"}
    assert not case["contenders"]["jaxvalues-gather"]["cold"]["from_cache"]  # it is another program
    shown = console.export_text()
    assert max(len(line) for line in shown.splitlines()) <= 120
    assert "…" not in shown  # no column was cut
    assert shown.count("jaxvalues-gather") == 3  # what it is, its steps, how it starts


def test_alone_on_real_lengths(tmp_path: Path) -> None:
    options = Options(peers=("none",), work=("inference",), lengths=(16,), repeats=1, warmup=0, real=True)
    result = bench(tiny(), options, Console(quiet=True))
    (case,) = result["cases"]
    assert list(case["contenders"]) == ["jaxvalues"]
    assert result["tokens"] == "a batch of the training split"


def test_a_length_that_no_batch_has() -> None:
    options = Options(peers=("none",), work=("inference",), lengths=(7,), real=True)
    with pytest.raises(UserError, match=r"no training batch is padded to 7 tokens, only to \[16\]"):
        bench(tiny(), options, Console(quiet=True))


def test_missing_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jaxvalues\[parity\]'.*--peer none"):
        check_comparable(tiny(), ("torch-eager",))
    check_comparable(tiny(), ())


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"tuning": {"method": "last_layers", "layers": 1}}, "tuning.method"),
        ({"training": {"batch_size": 8, "accumulation": 2}}, "training.accumulation"),
        ({"optimizer": {"layer_decay": 0.9}}, "layer decay"),
    ],
)
def test_work_that_the_peer_does_not_do(monkeypatch: pytest.MonkeyPatch, sections: dict, key: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=key):
        check_comparable(tiny(**sections), ("torch-eager",))


def test_gathers_need_relative_attention() -> None:
    with pytest.raises(ConfigError, match=r"--peer jaxvalues-gather .* this model has none"):
        bench(tiny(), Options(peers=("jaxvalues-gather",)), Console(quiet=True))


def test_unknown_options() -> None:
    with pytest.raises(ConfigError, match="--peer is `tensorflow`, expected one of torch-eager"):
        Options(peers=("tensorflow",))
    with pytest.raises(ConfigError, match="--repeats"):
        Options(repeats=0)


def test_random_batches_have_no_padding() -> None:
    batch = random_batch({"vocab_size": 320, "pad_token_id": 1}, 4, 16)
    assert batch["input_ids"].shape == (4, 16)
    assert batch["input_ids"].min() > 1
    assert batch["input_ids"].max() < 320
    assert batch["attention_mask"].all()


def test_a_contender_that_dies_says_why(tmp_path: Path) -> None:
    task = Task("inference", {}, {}, "", str(tmp_path / "absent.npz"), str(tmp_path), "cpu", "float32")
    with (
        Worker("jaxvalues", task) as worker,
        pytest.raises(UserError, match=r"jaxvalues: config: .*model"),
    ):
        worker.first()
    task = Task("inference", tiny().model_dump(mode="json"), {}, "", str(tmp_path / "absent.npz"), "", "tpu", "float32")
    with Worker("jaxvalues", task) as worker, pytest.raises(UserError, match=r"exit code 1: FileNotFoundError.*absent"):
        worker.first()
