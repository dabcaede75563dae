"""Run folders of the format before batches counted arguments: read as they were meant, or refused with what changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jaxvalues.config import Config, load_config, parse_config
from jaxvalues.config.run_format import RUN_FORMAT, run_format
from jaxvalues.config.writing import write_json as write
from jaxvalues.errors import ConfigError
from jaxvalues.run.provenance import check_same_run, check_trained_parts, describe_process, differences, read_run_config

MODEL = {"config": {"model_type": "t5"}, "train_tokenizer": {"vocab_size": 500}}
QUESTIONS = {"formulation": {"kind": "answer"}, "training": {"batch_size": 6}}
RECORD = {"base": "a", "data": {"test": "b"}}


def config(**changes: Any) -> Config:
    return parse_config({"model": MODEL, **changes})


def run_folder(folder: Path, one: Config, format: int | None = None) -> Path:
    """A run folder as a version wrote it that did not know the keys of today; of format 1 where none is given."""
    tree = json.loads(one.model_dump_json())
    if format is None:
        del tree["training"]["questions_per_step"], tree["data"]["full_held_out"]
    (folder / "config.yaml").write_text(json.dumps(tree))  # JSON is YAML
    (folder / "template.txt").write_text("t\n")
    write(folder / "environment.json", RECORD if format is None else {"format": format, **RECORD})
    return folder


def test_this_version_writes_its_format() -> None:
    assert describe_process()["format"] == RUN_FORMAT == 2


def test_the_format_is_read_from_the_environment(tmp_path: Path) -> None:
    assert run_format(tmp_path) == RUN_FORMAT  # no run, so no earlier meaning
    for content, format in (('{"a": 1}', 1), ('{"format": 2}', 2), ("{", RUN_FORMAT), ("[]", RUN_FORMAT)):
        (tmp_path / "environment.json").write_text(content)
        assert run_format(tmp_path) == format


def test_classifiers_are_read_as_they_are(tmp_path: Path) -> None:
    one = config(training={"batch_size": 6})
    folder = run_folder(tmp_path, one)
    assert read_run_config(folder) == load_config(folder / "config.yaml") == one
    check_same_run(folder, one, RECORD, {})


@pytest.mark.parametrize("few", [{"shots": 5}, {"fraction": 0.5}])
def test_few_shots_chose_on_all_that_was_held_out(few: dict[str, Any], tmp_path: Path) -> None:
    folder = run_folder(tmp_path, config(data=few))
    assert read_run_config(folder) == config(data={**few, "full_held_out": True})
    check_same_run(folder, config(data={**few, "full_held_out": True}), RECORD, {})
    with pytest.raises(ConfigError, match=r"data\.full_held_out True → False"):
        check_same_run(folder, config(data=few), RECORD, {})
    assert read_run_config(run_folder(tmp_path, config(data=few), 2)) == config(data=few)


def test_a_run_of_questions_is_not_resumed_and_still_predicts(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, config(**QUESTIONS))
    with pytest.raises(ConfigError) as error:
        check_same_run(folder, config(**QUESTIONS), RECORD, {})
    assert str(error.value) == (
        f"{folder} holds a run of an earlier version, in which training.batch_size counted single questions unless "
        "they branched, and now counts arguments: finish it with that version, or give another output=FOLDER"
    )
    assert differences(read_run_config(folder), config(**QUESTIONS)) == {}
    assert read_run_config(folder, ["mesh.fsdp=2"]).mesh.fsdp == 2
    check_same_run(run_folder(tmp_path, config(**QUESTIONS), 2), config(**QUESTIONS), RECORD, {})


def test_the_config_of_such_a_run_must_say_what_it_means_today(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, config(**QUESTIONS))
    (tmp_path / "mine.yaml").write_text("base: config.yaml\nname: mine\n")
    for file in ("config.yaml", "mine.yaml"):
        with pytest.raises(ConfigError) as error:
            load_config(folder / file)
        said = str(error.value).removeprefix(f"{folder / file}: ")
        assert said == (
            "written by an earlier version, whose training.batch_size counted single questions unless they branched. "
            "It counts arguments now: set training.questions_per_step=6 for as many questions, or null"
        )
        for value, expected in (("6", 6), ("null", None)):
            one = load_config(folder / file, [f"training.questions_per_step={value}"])
            assert one.training.questions_per_step == expected


@pytest.mark.parametrize(
    ("model_type", "changes", "is_refused"),
    [
        ("gpt2", {}, True),
        ("roberta", {"formulation": {"kind": "masked_choice"}}, True),
        ("roberta", {}, False),  # a classifier's head trained then, too
        ("gpt2", {"tuning": {"method": "head"}}, False),
    ],
)
def test_what_trains_above_the_last_layers_has_changed(
    model_type: str, changes: dict[str, Any], is_refused: bool, tmp_path: Path
) -> None:
    folder = run_folder(tmp_path, config(**{"tuning": {"method": "last_layers", "layers": 1}, **changes}))
    (folder / "model").mkdir()
    (folder / "model/config.json").write_text(json.dumps({"model_type": model_type}))
    if is_refused:
        with pytest.raises(ConfigError, match="kept what is above the layers of this network frozen"):
            check_trained_parts(folder)
    else:
        check_trained_parts(folder)
    write(folder / "environment.json", {"format": 2, **RECORD})
    check_trained_parts(folder)
