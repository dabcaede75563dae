"""Types are strict: true is no number, texts are no numbers, and a text that names something is not blank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from jaxvalues.config import Config, EnsembleConfig, load_config, parse_config
from jaxvalues.config.section import Text
from jaxvalues.errors import ConfigError

MODEL = {"model": {"path": "x"}}
OWN_SECTIONS = {"model.train_tokenizer": "{}", "loss.contrastive": "{}", "ensemble": "{}"}


def keys(section: type[BaseModel] = Config, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key with a value, and the kinds of value that it takes."""
    for name, field in section.model_fields.items():
        kinds = get_args(field.annotation) or (field.annotation,)
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if inner is None:
            yield above + name, field.annotation
        else:
            yield from keys(inner, f"{above}{name}.")


KEYS = dict(keys())
NUMBERS = sorted(key for key, kind in KEYS.items() if {int, float} & {kind, *get_args(kind)})
LISTS = sorted(key for key, kind in KEYS.items() if "tuple[" in str(kind))
TEXTS = sorted(key for key, kind in KEYS.items() if key not in LISTS and {str, Text} & {kind, *get_args(kind)})
TEXTS.remove("data.held_out")  # a fraction, or the name of a split
TEXTS.remove("model.remote.parameters")  # a mapping
SWITCHES = sorted(key for key, kind in KEYS.items() if bool in (kind, *get_args(kind)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text("model: {path: x}\n")
    return path


def refusal(file: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides)
    return str(caught.value)


def test_all_kinds_of_keys_are_there() -> None:
    assert {"seed", "data.held_out", "data.fraction", "training.epochs", "optimizer.learning_rate"} <= set(NUMBERS)
    assert {"training.evaluate_every", "loss.contrastive.epochs", "mesh.fsdp", "tuning.alpha"} <= {*NUMBERS, *KEYS}
    assert {"data.buckets", "ensemble.seeds", "formulation.pooling.layers"} <= set(LISTS)
    assert {"model.remat", "model.scan", "logging.tensorboard"} <= set(SWITCHES)
    assert {"name", "output", "model.path", "data.dir", "formulation.template", "logging.wandb"} <= set(TEXTS)
    assert len(NUMBERS) > 40


@pytest.mark.parametrize("key", NUMBERS)
def test_true_and_texts_are_no_numbers(key: str, file: Path) -> None:
    for value in ("true", "false", '"1"'):
        if key == "data.held_out" and value == '"1"':  # a text names a split
            continue
        assert f"`{key}`: input should be" in refusal(file, f"{key}={value}")


@pytest.mark.parametrize("key", ["seed", "training.epochs", "training.batch_size", "data.folds", "tuning.rank"])
def test_integers_are_written_as_integers(key: str, file: Path) -> None:
    for value in ("1.0", "1e1", "1.5"):
        assert f"`{key}`: input should be" in refusal(file, f"{key}={value}")


@pytest.mark.parametrize("value", ["010", "1_0", "1:30", "0x10", "0b1", "٣", "1٣"])
def test_numbers_are_decimal(value: str, file: Path) -> None:
    assert "`training.epochs`: input should be" in refusal(file, f"training.epochs={value}")
    for rate in (value,) if value == "010" else (value, f"{value}e-5", f"{value}.5"):
        assert "`optimizer.learning_rate`: input should be" in refusal(file, f"optimizer.learning_rate={rate}")


@pytest.mark.parametrize(
    ("value", "number"), [("1", 1), (".5", 0.5), ("2.", 2), ("1e-4", 1e-4), ("+2.5E-1", 0.25), ("00.5", 0.5)]
)
def test_an_integer_is_a_number_too(value: str, number: float, file: Path) -> None:
    assert load_config(file, [f"optimizer.weight_decay={value}"]).optimizer.weight_decay == number


@pytest.mark.parametrize("key", SWITCHES)
def test_a_switch_is_true_or_false(key: str, file: Path) -> None:
    for value in ("1", "0", "yes", "on", '"true"'):
        assert f"`{key}`: input should be" in refusal(file, f"{key}={value}")


@pytest.mark.parametrize("key", ["data.buckets", "formulation.pooling.layers", "ensemble.seeds"])
def test_true_is_no_number_in_a_list(key: str, file: Path) -> None:
    assert f"`{key}.1`: input should be" in refusal(file, f"{key}=[1, true]")


def test_a_list_of_one_faulty_item_has_one_problem(file: Path) -> None:
    for change in ("formulation.pooling.layers=[true]", "tuning.targets=['']", "formulation.verbalizer.yes=[1]"):
        assert "at least 1 item" not in refusal(file, change)
    assert "`formulation.pooling.layers`: " in refusal(file, "formulation.pooling.layers=[]")


def test_true_is_no_number_in_a_member(file: Path) -> None:
    assert "member b: `seed`: input should be" in refusal(file, "ensemble={members: [{name: b, seed: true}]}")
    with pytest.raises(ConfigError, match=r"member b: `training\.epochs`: input should be"):
        parse_config({**MODEL, "ensemble": {"members": [{"name": "b", "training": {"epochs": True}}]}})


@pytest.mark.parametrize("key", TEXTS)
def test_a_text_is_not_blank(key: str, file: Path) -> None:
    for value in ('""', '"  "', '"\\t"'):
        assert f"{key}: must not be blank" in refusal(file, f"{key}={value}")


@pytest.mark.parametrize(
    "key", ["data.report", "tuning.targets", "formulation.verbalizer.yes", "formulation.verbalizer.no"]
)
def test_a_text_in_a_list_is_not_blank(key: str, file: Path) -> None:
    assert f"{key}.1: must not be blank" in refusal(file, f"{key}=[a, '']")


@pytest.mark.parametrize("name", ["a/b", "/", ".", "..", '"a\\nb"', '"a\\x1bb"'])
def test_a_name_can_be_a_folder(name: str, file: Path) -> None:
    assert "name: must be usable as the name of a folder" in refusal(file, f"name={name}")


def test_a_name_holds_no_nul(file: Path) -> None:
    assert "name" in refusal(file, 'name="a\\0b"').removeprefix(str(file))


@pytest.mark.parametrize(
    "name", ["a b", "roberta-large.v2", "名前", "b=c", "...", "1e-4", "010", "1_0", "true ", "Yes"]
)
def test_other_names_come_back(name: str, tmp_path: Path) -> None:
    config = parse_config({**MODEL, "name": name})
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(tmp_path / "config.yaml") == config


def test_lists_and_tuples_are_the_same() -> None:
    one, other = (parse_config({**MODEL, "data": {"buckets": some}}) for some in ([8, 16], (8, 16)))
    assert one == other
    assert one.data.buckets == (8, 16)
    assert EnsembleConfig(seeds=[1, 2]).seeds == (1, 2)
