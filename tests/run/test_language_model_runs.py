"""Whole runs with a prompted chat model, whose weights are random: what is asked, kept, decided and predicted again."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny
from chat_templates import SMOLLM2, chat_tokenizer
from rich.console import Console

from jaxvalues.config import Config, FormulationConfig, parse_config
from jaxvalues.data.held_out import load_parts
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import ConfigError
from jaxvalues.evaluation.decision import EXCLUDED
from jaxvalues.evaluation.predictions import read_logits
from jaxvalues.formulations import load_texts, training_texts
from jaxvalues.run import inputs
from jaxvalues.run import predict as predict_module
from jaxvalues.run import train as run_module
from jaxvalues.run.predict import predict
from jaxvalues.training import progress

pytestmark = pytest.mark.usefixtures("quick_compiles")

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 300, "tie_word_embeddings": True,
    "initializer_range": 0.2,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "answer": {"kind": "answer", "examples": {"count": 1, "choose": "nearest"}},
    "label_list": {"kind": "label_list", "generation": {"max_new_tokens": 4, "samples": 2, "temperature": 1.0}},
    "chain_of_thought": {"kind": "chain_of_thought", "generation": {"max_new_tokens": 6}},
}


class Lab(NamedTuple):
    """Runs of `KINDS`, each in a folder of its own."""

    folder: Path
    runs: dict[str, tuple[Path, str]]

    def config(self, kind: str, name: str, **formulation: Any) -> Config:
        return parse_config({
            "output": str(self.folder / name),
            "data": {
                "source": "sample", "max_length": 288, "buckets": [288], "fraction": 0.1, "report": ["validation"],
                "held_out": "test", "full_held_out": True,
            },
            "model": {"config": LLAMA, "tokenizer": str(self.folder / "tokenizer"), "scan": False, "dtype": "float32"},
            "formulation": {"chat": True, **KINDS[kind], **formulation},
            "tuning": {"method": "none"},
            "training": {"eval_batch_size": 8},
            "logging": {"tensorboard": False},
            "runtime": {"compilation_cache": os.environ["JAX_COMPILATION_CACHE_DIR"]},
        })  # fmt: skip

    def run(self, kind: str, name: str | None = None, **formulation: Any) -> tuple[Path, str]:
        """(run folder, what was printed)."""
        name = name or kind
        if name not in self.runs:
            screen = Console(file=io.StringIO(), width=200)
            run_module.train(self.config(kind, name, **formulation), screen)
            self.runs[name] = self.folder / name, screen.file.getvalue()
        return self.runs[name]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, module_patch: pytest.MonkeyPatch) -> Lab:
    folder = tmp_path_factory.mktemp("prompted")
    tokenizer().save_pretrained(folder / "tokenizer")

    def few(config: Any) -> Any:  # of every split, eight arguments
        parts = load_parts(config)
        held_out, reported = (one.subset(range(8)) for one in (parts.held_out, *parts.reported))
        return parts._replace(held_out=held_out, reported=(reported,))

    module_patch.setattr(inputs, "load_parts", few)
    return Lab(folder, {})


@pytest.fixture(scope="module")
def module_patch() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def tokenizer() -> Any:
    """A chat tokenizer that splits the sample and its questions into few tokens."""
    form = FormulationConfig(kind="chain_of_thought")
    return chat_tokenizer(SMOLLM2, tuple(training_texts(form, load_texts(form), tiny.split().arguments)))


def record(folder: Path, split: str = "validation") -> dict[str, Any]:
    return json.loads((folder / "language_model.json").read_text())[split]


def texts(folder: Path, split: str = "validation") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"generated-{split}.jsonl").read_text().splitlines()]


def test_what_was_asked_is_kept(lab: Lab) -> None:
    one = record(lab.run("answer")[0])
    prompt = one["first_prompt"]
    assert prompt["text"].startswith("<|im_start|>system\nYou are a helpful assistant<|im_end|>\n")
    assert prompt["text"].endswith("<|im_start|>assistant\n")
    assert prompt["text"].count("Given the premise") == 2  # an example, and the argument
    ids = tokenizer()(prompt["text"], add_special_tokens=False)["input_ids"]
    assert (prompt["tokens"], prompt["bos"]) == (len(ids), 0)
    assert (prompt["first_ids"], prompt["last_ids"]) == (ids[:16], ids[-16:])
    assert {(word["answer"], word["text"].strip().lower()) for word in one["answer_words"]} == {
        ("yes", "yes"), ("no", "no"),
    }  # fmt: skip
    assert 0 < one["answer_mass"]["mean"] < 1
    assert list(one["answer_mass"]["by_label"]) == list(CATEGORIES)


def test_decisions_stand_side_by_side(lab: Lab) -> None:
    folder, printed = lab.run("answer")
    rows = json.loads((folder / "decisions.json").read_text())
    assert list(rows) == ["raw", "batch-calibrated", "tuned", "batch-calibrated and tuned"]
    scores = json.loads((folder / "scores.json").read_text())
    assert rows["tuned"]["validation"] == scores["splits"]["validation"]
    assert rows["tuned"]["held_out"] == scores["held_out"]
    assert all(row in printed for row in rows)


def test_lists_are_parsed_counted_and_voted(lab: Lab) -> None:
    folder, _ = lab.run("label_list")
    one = record(folder)
    assert sum(one["answers"].values()) == sum(one["finish_reasons"].values()) == 16
    kept = texts(folder)
    assert [(text["argument"], text["sample"]) for text in kept[:3]] == [
        (kept[0]["argument"], 0), (kept[0]["argument"], 1), (kept[2]["argument"], 0),
    ]  # fmt: skip
    logits = read_logits(folder / "logits-validation.tsv").values
    assert set(np.unique(logits)) <= {-1.0, 0.0, 1.0}
    assert (logits == -1).all() == all(text["status"] != "answered" for text in kept)


def test_a_chain_is_generated_once_and_scored_for_each_category(lab: Lab) -> None:
    folder, _ = lab.run("chain_of_thought")
    one, kept = record(folder), texts(folder)
    assert len(kept) == 8
    assert one["answers"]["unparsed"] == 0
    second, first = one["second_turn"]["first_prompt"]["text"], one["first_prompt"]["text"]
    assert second.startswith(first)
    reply = kept[0]["text"].strip()
    assert f"{reply}<|im_end|>\n<|im_start|>user\nDo you think {reply} is aligned with Self-direction" in second
    assert second.endswith("Answer Yes or No.<|im_end|>\n<|im_start|>assistant\n")
    assert 0 < one["answer_mass"]["mean"] < 1
    logits = read_logits(folder / "logits-validation.tsv").values
    assert len(np.unique(logits)) > 100


@pytest.mark.slow
@pytest.mark.main_cases("chain_of_thought")
@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_predicts_the_same_again(
    kind: str, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = lab.run(kind)
    monkeypatch.setattr(progress, "SILENCE_S", -1.0)
    screen, kept = Console(file=io.StringIO(), width=150), []
    monkeypatch.setattr(predict_module, "forget_answers", lambda folder, names: kept.append((folder, names)))
    predict(folder, split="validation", out=tmp_path, console=screen)
    ((answers, names),) = kept
    assert {path.name.partition(".")[0] for path in answers.iterdir()} == names  # of a stopped one, these are left
    monkeypatch.undo()
    again = Console(file=io.StringIO(), width=150)
    predict(folder, split="validation", out=tmp_path, console=again)
    total = int(re.search(r"row \d+ of (\d+)", screen.file.getvalue())[1])
    known = map(int, re.findall(r"rows: (\d+) of \d+ were done before", again.file.getvalue()))
    assert sum(known) == total * (2 if kind == "chain_of_thought" else 1)
    assert not answers.exists()
    if kind == "chain_of_thought":
        assert re.search(
            r"row \d+ of (\d+) \(first turns\)\n(.*\n)*row \1 of \1 \(second turns\)\n", screen.file.getvalue()
        )
    ours, before = (read_logits(one / "logits-validation.tsv") for one in (tmp_path, folder))
    assert ours.ids[:8] == before.ids
    if kind != "label_list":  # a draw depends on the argument's place among those that are shuffled together
        np.testing.assert_allclose(ours.values[:8], before.values, atol=1e-5)


def test_a_shortlist_leaves_the_decision_to_the_model(lab: Lab) -> None:
    proposer, _ = lab.run("answer")
    folder, _ = lab.run("answer", "shortlisted", examples=None, shortlist={"run": str(proposer), "count": 3})
    logits, proposed = (read_logits(one / "logits-validation.tsv").values for one in (folder, proposer))
    asked = logits > EXCLUDED
    assert (asked.sum(axis=1) == 3).all()
    assert (np.where(asked, proposed, np.inf).min(axis=1) >= np.where(asked, -np.inf, proposed).max(axis=1)).all()
    config = lab.config("answer", "other", examples=None, shortlist={"run": str(lab.folder)})
    with pytest.raises(ConfigError, match=r"formulation\.shortlist\.run: .* holds no predictions"):
        run_module.train(config, Console(file=io.StringIO()))


def test_nothing_trains_in_generated_answers(lab: Lab) -> None:
    tree = lab.config("label_list", "other").model_dump(mode="json")
    tree["tuning"]["method"] = "lora"
    with pytest.raises(ConfigError, match="label_list is for models as they are"):
        parse_config(tree)
