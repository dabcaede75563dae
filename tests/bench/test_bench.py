"""The bench from end to end on a tiny network: what it reports, and what it refuses. No test looks at a time."""

from __future__ import annotations

import importlib.util
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from transformers import AutoTokenizer

from jaxvalues.bench import measure
from jaxvalues.bench.inputs import positions, random_batch, separate_questions
from jaxvalues.bench.measure import WORK, Options, bench, make_task
from jaxvalues.bench.peers import check_comparable, missing_packages
from jaxvalues.bench.report import describe_shape, saving
from jaxvalues.bench.task import Task
from jaxvalues.bench.worker import Worker
from jaxvalues.config import Config, parse_config
from jaxvalues.data.batches import Tokens
from jaxvalues.data.loading import load_split
from jaxvalues.data.training_batches import TrainingBatches
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
GPT2 = {"model_type": "gpt2", "n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 128, "vocab_size": 1000}
T5 = {
    "model_type": "t5",
    "vocab_size": 1000,
    "d_model": WIDTH,
    "d_kv": 32,
    "d_ff": 2 * WIDTH,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
PROMPT = 4  # tokens
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


def question_config(model: dict = GPT2, **sections: dict) -> Config:
    """Prompt tuning of a language model that answers Yes or No."""
    tree = {
        "name": "questions",
        "data": {"source": "sample", "max_length": 96, "buckets": [64]},
        "model": {"config": model, "train_tokenizer": {"vocab_size": 1000}},
        "formulation": {"kind": "answer"},
        "tuning": {"method": "prompt", "length": PROMPT},
        "training": {"batch_size": 8, "eval_batch_size": 8},
    }
    return parse_config({**tree, **sections})


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SAMPLE_SECONDS", 0.001)


@pytest.mark.exhaustive
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


@pytest.mark.exhaustive
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
    assert "…" not in shown  # no column is truncated
    assert shown.count("jaxvalues-gather") == 3  # what it is, its steps, how it starts


@pytest.mark.exhaustive
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


def test_without_torch_the_default_is_jaxvalues_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert missing_packages(("torch-eager",)) == ["torch"]
    assert missing_packages(("peft", "jaxvalues-apart")) == ["torch", "peft"]
    assert missing_packages(("jaxvalues-apart",)) == []
    stream = io.StringIO()
    monkeypatch.setattr(measure, "find_base", _stop)
    with pytest.raises(UserError, match="that far"):
        measure.bench(tiny(), measure.Options(), Console(file=stream, width=120))
    said = "Measuring jaxvalues alone: torch-eager needs torch (pip install 'jaxvalues[parity]')."
    assert stream.getvalue().strip() == said
    with pytest.raises(UserError, match="the peer needs torch"):
        measure.bench(tiny(), measure.Options(peers=("torch-eager",)), Console(file=stream))


def _stop(*_: object) -> None:
    raise UserError("that far")


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
    tokens = Tokens((np.arange(3),), np.zeros((1, 20)))
    batch = random_batch(TrainingBatches(tokens, (16,), 4, 0, 0), 16, range(2, 320))
    assert batch["input_ids"].shape == (4, 16)
    assert batch["input_ids"].min() > 1
    assert batch["input_ids"].max() < 320
    assert batch["attention_mask"].all()
    assert batch["labels"].shape == (4, 20)


def test_a_contender_that_dies_says_why(tmp_path: Path) -> None:
    task = Task("inference", {}, {}, "", str(tmp_path / "absent.npz"), str(tmp_path), "cpu", "float32")
    with (
        Worker("jaxvalues", task) as worker,
        pytest.raises(UserError, match=r"jaxvalues: config: .*model"),
    ):
        worker.first()
    task = Task(
        "inference",
        tiny().model_dump(mode="json"),
        {},
        "",
        str(tmp_path / "absent.npz"),
        str(tmp_path),
        "tpu",
        "float32",
    )
    with Worker("jaxvalues", task) as worker, pytest.raises(UserError, match=r"exit code 1: FileNotFoundError.*absent"):
        worker.first()


@pytest.mark.exhaustive
@pytest.mark.main_cases("t5")
@pytest.mark.parametrize(("model", "work"), [(GPT2, WORK), (T5, ("train",))], ids=["gpt2", "t5"])
def test_prompt_tuning_beside_peft(model: dict, work: tuple[str, ...]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    console = Console(record=True, width=120)
    result = bench(question_config(model), Options(work=work, lengths=(64,), repeats=1, warmup=0), console)

    for case in result["cases"]:
        assert case["shape"] == [8, 64]  # questions of their own, no branches
        ours, theirs = case["contenders"]["jaxvalues"], case["contenders"]["peft"]
        assert theirs["is"]["parameters"] == ours["is"]["parameters"]
        assert "logits at the answer only" in theirs["is"]["settings"]
        assert theirs["positions"] == ours["positions"] == {"computed": 8 * (64 + PROMPT), "real": 8 * (64 + PROMPT)}
        assert "cold" not in theirs
        assert math.isclose(theirs["times_the_memory_of_jaxvalues"], theirs["peak_bytes"] / ours["peak_bytes"])
    shown = console.export_text()
    assert max(len(line) for line in shown.splitlines()) <= 120
    assert "…" not in shown


def test_peft_reads_the_answer_behind_the_last_real_token(tmp_path: Path) -> None:
    """The logits of right-padded rows are those of the rows alone."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    from jaxvalues.bench.peft_contender import PeftContender

    ids, mask = np.full((2, 8), 5), np.ones((2, 8), int)
    ids[1, 5:], mask[1, 5:] = 0, 0

    def logits(rows: slice, length: int) -> np.ndarray:
        batch = {"input_ids": ids[rows, :length], "attention_mask": mask[rows, :length]}
        np.savez(tmp_path / "batch.npz", **batch)
        config = question_config().explicit().model_dump(mode="json")
        task = Task("inference", config, GPT2, "", str(tmp_path / "batch.npz"), "", "cpu", "float32", words=(3, 7))
        return PeftContender(task)._infer().numpy()

    torch.manual_seed(0)
    together = logits(slice(0, 2), 8)
    assert together.shape == (2, 1)
    assert np.allclose(together[1:], logits(slice(1, 2), 5), atol=1e-5)
    assert not np.allclose(together[:1], together[1:], atol=1e-5)


@pytest.mark.exhaustive
def test_branches_beside_questions_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(record=True, width=120)
    options = Options(peers=("jaxvalues-apart",), lengths=(64,), repeats=1, warmup=0, real=True)
    monkeypatch.setattr(measure, "MICRO_BATCHES", {"jaxvalues": (1,), "jaxvalues-apart": (4,)})
    result = bench(question_config(), options, console)

    for case in result["cases"]:
        rows, tokens, questions, size = case["shape"]
        assert (rows, tokens, questions) == (8, 64, 20)
        ours, theirs = case["contenders"]["jaxvalues"], case["contenders"]["jaxvalues-apart"]
        assert "40 rows of 160 at a time" in theirs["is"]["settings"]
        assert "at a time" not in ours["is"]["settings"]
        assert ours["positions"]["computed"] == 8 * (PROMPT + 64 + 20 * size)
        # Rows that stand apart repeat prompt and argument twenty times, and every question comes once in both.
        ours_real, theirs_real = ours["positions"]["real"], theirs["positions"]["real"]
        arguments = (theirs_real - ours_real) // 19
        assert theirs_real - ours_real == 19 * arguments
        assert 8 * (PROMPT + 1) < arguments < 8 * (PROMPT + 64)
        assert saving(case)["real"] == theirs_real / ours_real > 1
    shown = console.export_text()
    assert "Branches" in shown
    assert max(len(line) for line in shown.splitlines()) <= 120
    assert "…" not in shown


def test_a_chain_of_thought_is_measured_by_its_second_turns(tmp_path: Path) -> None:
    """The premise is there three times: in the first turn, as the reply to it, and in the question."""
    formulation = {"kind": "chain_of_thought", "generation": {"max_new_tokens": 16}}
    data = {"source": "sample", "max_length": 512, "buckets": [512]}
    config = question_config(formulation=formulation, tuning={"method": "none"}, data=data).explicit()
    task, tokens, _ = make_task(config, ("jaxvalues-apart",), str(tmp_path), Options(work=("inference",)))
    argument = load_split("training", source="sample").arguments[0]
    text = AutoTokenizer.from_pretrained(task.tokenizer).decode(tokens.ids[0])
    assert text.count(argument.premise) == 3
    assert len(tokens.questions.question_ids) == 20
    assert tokens.labels.shape == (len(tokens), 20)


def test_questions_apart_are_the_rows_that_branches_stand_for() -> None:
    batch = {
        "input_ids": np.array([[11, 12, 13], [21, 0, 0]]),
        "attention_mask": np.array([[1, 1, 1], [1, 0, 0]]),
        "question_ids": np.array([[[1, 2], [3, 0]]] * 2),
        "question_mask": np.array([[[1, 1], [1, 0]]] * 2),
        "categories": np.array([[4, 7]] * 2),
        "labels": np.array([[0, 1], [1, 0]], np.float32),
        "weights": np.array([[1, 1], [0, 0]], np.float32),
    }
    rows = separate_questions(batch, pad_id=0)
    assert rows["input_ids"].tolist() == [[11, 12, 13, 1, 2], [11, 12, 13, 3, 0], [21, 1, 2, 0, 0], [21, 3, 0, 0, 0]]
    assert rows["attention_mask"].sum(axis=1).tolist() == [5, 4, 3, 2]
    assert rows["categories"].tolist() == [[4], [7], [4], [7]]
    assert rows["labels"].tolist() == [[0], [1], [1], [0]]
    assert rows["weights"].tolist() == [[1], [1], [0], [0]]
    assert "question_ids" not in rows
    config = question_config()
    assert positions(batch, config) == {"computed": 2 * (PROMPT + 3 + 4), "real": 2 * PROMPT + 4 + 6}
    assert positions(rows, config) == {"computed": 4 * (PROMPT + 5), "real": 4 * PROMPT + 14}


def test_shapes_in_words() -> None:
    assert describe_shape([8, 48]) == "8 × 48"
    assert describe_shape([8, 48, 20, 9]) == "8 × (48 + 20 × 9)"


@pytest.mark.parametrize(
    ("peers", "sections", "message"),
    [
        (("torch-eager",), {}, "classifier"),
        (("peft", "jaxvalues-apart"), {}, "name one of them"),
        (("peft",), {"tuning": {"method": "lora"}}, "tuning.method prompt"),
        (("peft",), {"formulation": {"kind": "open_answer"}}, "formulation.kind answer"),
        (("peft",), {"loss": {"kind": "focal"}}, "loss.kind bce"),
        (("jaxvalues-apart",), {"training": {"batch_size": 8, "accumulation": 2}}, "its own micro-batches"),
    ],
)
def test_questions_that_a_peer_does_not_ask(
    monkeypatch: pytest.MonkeyPatch, peers: tuple[str, ...], sections: dict, message: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=message):
        check_comparable(question_config(**sections), peers)


@pytest.mark.parametrize("config", [tiny(), question_config(T5)])
def test_nothing_branches(config: Config) -> None:
    with pytest.raises(ConfigError, match="--peer jaxvalues-apart needs questions that branch"):
        bench(config, Options(peers=("jaxvalues-apart",)), Console(quiet=True))
