"""What a run was made of, and when a folder holds another run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from jaxvalues.config import Config, parse_config
from jaxvalues.config.writing import write_json
from jaxvalues.data.arguments import Split
from jaxvalues.data.batches import QuestionIndex, Tokens
from jaxvalues.data.held_out import Parts, load_parts
from jaxvalues.data.loading import load_split
from jaxvalues.data.tokenizer_files import tokenizer_hash
from jaxvalues.data.tokenizers import load_tokenizer
from jaxvalues.errors import ConfigError
from jaxvalues.models import hub_commit
from jaxvalues.run.base import Base
from jaxvalues.run.provenance import (
    TEMPLATE,
    check_same_run,
    checksum,
    describe_environment,
    differences,
    input_facts,
)


def config(**changes: Any) -> Config:
    model = {"config": {"model_type": "roberta", "hidden_size": 64}, "train_tokenizer": {"vocab_size": 500}}
    return parse_config({"model": model, **changes})


@pytest.fixture
def split() -> Split:
    return load_split("test", source="sample")


def describe(config: Config, parts: Parts) -> dict[str, Any]:
    """environment.json as it is read back."""
    return json.loads(json.dumps(describe_environment(config, Base({}, None, "weights"), parts)))


def write_run(folder: Path, config: Config, environment: dict[str, Any]) -> None:
    (folder / "config.yaml").write_text(config.to_yaml())
    (folder / "template.txt").write_text("{premise}\n")
    write_json(folder / "environment.json", environment)


def test_checksum_sees_every_text_and_label(split: Split) -> None:
    last = replace(split.arguments[-1], premise=split.arguments[-1].premise + " ")
    labels = split.labels.copy()
    labels[-1, -1] ^= 1
    others = [
        split.subset(range(len(split) - 1)),
        split.subset(reversed(range(len(split)))),
        Split(split.name, (*split.arguments[:-1], last), split.labels),
        Split(split.name, split.arguments, labels),
        Split(split.name, split.arguments),
    ]
    assert len({checksum(one) for one in (split, *others)}) == 6
    assert checksum(Split("another name", split.arguments, np.array(split.labels))) == checksum(split)


def test_environment_is_json_and_complete(split: Split) -> None:
    parts = Parts(split.subset(range(9)), split.subset(range(9, 12)), (), full_training=replace(split, name="training"))
    environment = describe(config(), parts)
    assert environment["base"] == "weights"
    assert environment["data"] == {name: checksum(one) for name, one in parts.by_name.items()}
    assert environment["config"] == config().fingerprint()
    assert None not in environment["versions"].values()
    assert len(environment["devices"]) == 8
    assert environment["processes"] == 1
    assert "trained_on" not in environment


def test_processes_compare_all_that_rows_are_made_of(split: Split) -> None:
    parts, base = Parts(split, split, (), full_training=split), Base({}, None, "random")

    def facts(synonyms: str = "a", proposed: int = 0, answer: int = 1) -> dict[str, Any]:
        index = QuestionIndex(np.arange(2), np.zeros((2, 1), int), answer_ids=np.full((1, 1, 1), answer))
        tokens = {"training": Tokens((np.array([1, 2]),), None, questions=index)}
        return input_facts(base, parts, tokens, {"synonyms.tsv": synonyms}, np.array([proposed]))

    assert facts() == facts()
    changed = [facts(synonyms="b"), facts(proposed=1), facts(answer=2)]
    assert [[key for key, value in facts().items() if one[key] != value] for one in changed] == [
        ["text synonyms.tsv"], ["shortlist"], ["questions training"],
    ]  # fmt: skip


@pytest.mark.parametrize("few", [{"shots": 1}, {"fraction": 0.1}])
def test_a_drawn_part_is_told_by_its_ids(few: dict[str, Any]) -> None:
    one = config(data={"source": "sample", **few})
    parts = load_parts(one.data)
    environment = describe(one, parts)
    trained_on = environment["trained_on"]
    assert trained_on == list(parts.training.ids)
    assert environment["chosen_on"] == list(parts.held_out.ids)
    assert 1 < len(trained_on) < len(parts.full_training) / 2


def test_the_same_run_may_move_and_be_laid_out_anew(tmp_path: Path) -> None:
    environment = {"base": "a", "data": {"test": "b"}, "git": "old"}
    write_run(tmp_path, config(), environment)
    how = {"eval_batch_size": 2, "log_every": 7, "warn_after": 3, "checkpoint_every": 5}  # memory, words, and saving
    laid_out = {"mesh": {"fsdp": 2}, "logging": {"tensorboard": False}, "training": how}
    moved = config(name="n", output="o", data={"dir": "elsewhere"}, **laid_out)
    check_same_run(tmp_path, moved, {**environment, "git": "new"}, {TEMPLATE: "{premise}"})


@pytest.mark.parametrize(
    ("changes", "environment", "said"),
    [
        ({"seed": 1}, {}, "seed 0 → 1"),
        ({"optimizer": {"b1": 0.8}, "seed": 2}, {}, "seed 0 → 2; optimizer.b1 0.9 → 0.8"),
        ({}, {"base": "x"}, "other weights"),
        ({}, {"data": {"test": "x"}}, "other data"),
    ],
)
def test_another_run_is_refused_naming_what_differs(
    changes: dict[str, Any], environment: dict[str, Any], said: str, tmp_path: Path
) -> None:
    before = {"base": "a", "data": {"test": "b"}}
    write_run(tmp_path, config(), before)
    with pytest.raises(ConfigError) as caught:
        check_same_run(tmp_path, config(**changes), {**before, **environment}, {TEMPLATE: "{premise}"})
    assert f"holds a run that differs ({said}): give another output=FOLDER" in str(caught.value)


def test_a_run_whose_held_out_part_was_cut_by_exact_texts_is_told_apart(tmp_path: Path) -> None:
    before = {"base": "a", "data": {"training": "a", "held_out": "b", "test": "c"}}
    write_run(tmp_path, config(), before)

    def refusal(parts: dict[str, str], **changes: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            check_same_run(tmp_path, config(**changes), {"base": "a", "data": parts}, {TEMPLATE: "{premise}"})
        return str(caught.value)

    cut = before["data"] | {"training": "x", "held_out": "y"}
    assert "a held-out part of an earlier version, which compared conclusions letter by letter" in refusal(cut)
    assert "differs (other data)" in refusal(cut | {"test": "z"})
    for data in ({"held_out_by": "argument"}, {"held_out": "validation", "report": ["test"]}):
        assert "; other data)" in refusal(cut, data=data)
    write_run(tmp_path, config(), before | {"format": 2})  # its conclusions were compared as they are now
    assert "differs (other data)" in refusal(cut)


def test_another_text_under_the_same_name_is_another_run(tmp_path: Path) -> None:
    environment = {"base": "a", "data": {"test": "b"}}
    write_run(tmp_path, config(), environment)
    for change in (lambda: None, (tmp_path / "template.txt").unlink):
        change()
        with pytest.raises(ConfigError, match=r"differs \(other text in template or descriptions\): give another"):
            check_same_run(tmp_path, config(), environment, {TEMPLATE: "{premise} "})


def test_another_network_or_tokenizer_is_another_run(tmp_path: Path) -> None:
    """model.path may name a folder whose config.json or tokenizer was changed; its weights are the same."""
    environment = {"base": "a", "data": {"test": "b"}, "tokenizer": "c"}
    network = {"model_type": "roberta", "hidden_act": "gelu", "transformers_version": "5.0"}
    write_run(tmp_path, config(), environment)
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model/config.json", network)
    texts = {TEMPLATE: "{premise}"}
    check_same_run(tmp_path, config(), environment, texts, {**network, "transformers_version": "5.1"})
    for tokenizer, here, said in (
        ("d", network, r"\(other tokenizer\)"),
        ("c", {**network, "hidden_act": "relu"}, r"\(model\.config hidden_act gelu → relu\)"),
        ("c", {"model_type": "roberta"}, r"hidden_act gelu → None"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_same_run(tmp_path, config(), {**environment, "tokenizer": tokenizer}, texts, here)
    write_json(tmp_path / "environment.json", {"base": "a", "data": {"test": "b"}})  # of an earlier version
    check_same_run(tmp_path, config(), {**environment, "tokenizer": "d"}, texts, network)


def test_a_tokenizer_is_told_by_what_it_does(tmp_path: Path) -> None:
    one = tiny.tokenizer()
    one.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    again("a text", truncation=True, max_length=3, padding="max_length")
    assert tokenizer_hash(again) == tokenizer_hash(load_tokenizer(tmp_path))
    again.add_tokens(["<new>"])
    assert tokenizer_hash(again) != tokenizer_hash(one)


@pytest.mark.parametrize(
    ("folder", "commit"),
    [("snapshots/" + "0a" * 20, "0a" * 20), ("snapshots/main", None), ("elsewhere/" + "0a" * 20, None)],
)
def test_the_commit_of_the_hub_is_recorded(folder: str, commit: str | None) -> None:
    parts = load_parts(config(data={"source": "sample"}).data)
    base = Base({}, Path(folder), "weights", hub_commit(Path(folder)))
    assert describe_environment(config(), base, parts).get("hub") == commit


def test_a_key_that_only_the_old_config_has_is_a_difference() -> None:
    wider = parse_config({"model": {**config().model.model_dump(), "config": {"model_type": "roberta"}}})
    assert differences(config(), wider) == {"model.config.hidden_size": (64, None)}
    assert differences(wider, config()) == {"model.config.hidden_size": (None, 64)}
    assert differences(config(), config()) == {}


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"é": 1}
