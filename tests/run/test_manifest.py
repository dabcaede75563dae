"""The checksums of a finished run: a changed byte is named, tables may be written anew, old runs have none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxvalues.errors import UserError
from jaxvalues.run.manifest import MANIFEST, add_to_manifest, check_manifest, take_from_manifest, write_manifest

FILES = ("config.yaml", "thresholds.json", "template.txt", "model/config.json", "tokenizer/tokenizer.json")
FILES += ("checkpoints/chosen.json", "probabilities-test.tsv", "predictions-test.tsv")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder of made-up files, with what is not needed later besides."""
    for name in (*FILES, "metrics.jsonl", "tensorboard/events", "checkpoints/resume.json", "lock.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"this is {name}\n")
    write_manifest(tmp_path, {"scores.json": "{}\n"})
    (tmp_path / "scores.json").write_text("{}\n")
    return tmp_path


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[1] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("name", [*FILES, "scores.json"])
def test_a_changed_byte_is_named(name: str, folder: Path) -> None:
    check_manifest(folder)
    flip(folder / name)
    with pytest.raises(UserError, match=f"{folder / name}: differs from what the run wrote"):
        check_manifest(folder)
    if name.endswith(".tsv"):
        check_manifest(folder, tables=False)


def test_a_file_that_is_gone_is_named(folder: Path) -> None:
    (folder / "predictions-test.tsv").unlink()
    check_manifest(folder)  # which nothing needs
    (folder / "model/config.json").unlink()
    with pytest.raises(UserError, match=r"model/config\.json: no such file, and the run needs it"):
        check_manifest(folder)


def test_what_is_not_needed_may_change(folder: Path) -> None:
    for name in ("metrics.jsonl", "tensorboard/events", "checkpoints/resume.json", "lock.json"):
        flip(folder / name)
    check_manifest(folder)


def test_predictions_may_be_written_anew(folder: Path) -> None:
    taken = take_from_manifest(folder, ["probabilities-test.tsv", "probabilities-mine.tsv"])
    assert taken == ["probabilities-test.tsv"]
    flip(folder / "probabilities-test.tsv")
    check_manifest(folder)
    add_to_manifest(folder, taken)
    check_manifest(folder)
    flip(folder / "probabilities-test.tsv")
    with pytest.raises(UserError, match="probabilities-test"):
        check_manifest(folder)


def test_a_run_from_before_there_was_a_manifest_is_not_checked(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    flip(folder / "config.yaml")
    check_manifest(folder)
    assert take_from_manifest(folder, FILES) == []
    add_to_manifest(folder, [])
    assert not (folder / MANIFEST).exists()


@pytest.mark.parametrize("sums", [3, [], {"../x": "a"}, {"/etc/passwd": "a"}, {"config.yaml": None}])
def test_a_manifest_that_is_none(sums: object, folder: Path) -> None:
    (folder / MANIFEST).write_text(json.dumps({"sha256": sums}))
    with pytest.raises(UserError, match=r"manifest\.json: `sha256`"):
        check_manifest(folder)
