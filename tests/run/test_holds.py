"""Commands leave alone what a folder holds already."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from runs import results
from small_runs import Lab

from jaxvalues.data.loading import load_split
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.tsv import ARGUMENT_HEADER, write_table
from jaxvalues.ensemble.combination import check_folder
from jaxvalues.errors import ConfigError
from jaxvalues.run.holds import holds
from jaxvalues.run.predict import predict

LEFT = "what is left of a run"


@pytest.fixture(scope="module")
def trained(small_lab: Lab) -> Path:
    return small_lab.train("trained", "training.epochs=1")[0]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("study.yaml", "a study"),
        ("detector.json", "a detector"),
        ("adapter_config.json", "a PEFT adapter"),
        ("config.json", "a model for transformers"),
        ("config.yaml", "a single run"),
        ("scores.json", LEFT),
        ("checkpoints", LEFT),
    ],
)
def test_neither_run_nor_ensemble_nor_predictions_overwrite_it(
    small_lab: Lab, trained: Path, tmp_path: Path, name: str, what: str
) -> None:
    (tmp_path / name).write_text("{}")
    assert holds(tmp_path).startswith(what)
    if name != "config.yaml":  # of which a run is
        with pytest.raises(ConfigError, match=rf"holds {what}.*: give another output=FOLDER, or remove it"):
            small_lab.train("unused", f"output={tmp_path}")
    with pytest.raises(ConfigError, match=rf"holds {what}.*: give the ensemble another folder"):
        check_folder(tmp_path)
    with pytest.raises(ConfigError, match=rf"--out .* holds {what}.*: give another folder"):
        predict(trained, split="test", out=tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_nothing_is_held_by_a_folder_of_predictions_or_of_other_files(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert holds(tmp_path) is holds(tmp_path / "none") is None
    predict(trained, split="validation", out=tmp_path)
    assert holds(tmp_path) is None


def test_predictions_of_other_thresholds_are_not_mixed(small_lab: Lab, trained: Path, tmp_path: Path) -> None:
    predict(trained, split="test", out=tmp_path)
    predict(trained, split="validation", out=tmp_path)
    other, _ = small_lab.train("other", "training.epochs=1", "seed=3")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match="holds predictions with other thresholds: give another folder"):
        predict(other, split="validation", out=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_keeps_its_predictions_of_a_split(trained: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split in ("training", "validation", "test"):
        sample = load_split(split, source="sample")
        rows = [(one.id, one.conclusion, one.stance, one.premise) for one in sample.arguments]
        write_table(data / f"arguments-{split}.tsv", ARGUMENT_HEADER, rows[: 3 if split == "test" else None])
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    before = results(folder)
    (tmp_path / "test.csv").write_text("premise\nThey pollute\n")
    with pytest.raises(ConfigError, match=r"has another test split than the data of .*: give --out"):
        predict(folder, split="test", overrides=(f"data.dir={data}",))
    for out in (None, folder, f"{tmp_path}/./run"):
        with pytest.raises(ConfigError, match=r"has the name of a split, whose predictions in .* it would replace"):
            predict(folder, file=tmp_path / "test.csv", out=out)
    assert results(folder) == before
    predict(folder, split="training")  # of which the run knows a part by this name
    assert (folder / "predictions-training.tsv").is_file()
    predict(folder, split="test")
    assert json.loads((folder / "scores.json").read_text()) == json.loads((trained / "scores.json").read_text())


def test_labels_of_a_reported_split_that_are_all_0_stand_for_hidden_ones(small_lab: Lab, tmp_path: Path) -> None:
    for split in ("training", "validation", "test"):
        sample = load_split(split, source="sample")
        rows = [(one.id, one.conclusion, one.stance, one.premise) for one in sample.arguments]
        write_table(tmp_path / f"arguments-{split}.tsv", ARGUMENT_HEADER, rows)
        labels = sample.labels * (split != "test")
        table = [(id, *row) for id, row in zip(sample.ids, labels.tolist(), strict=True)]
        write_table(tmp_path / f"labels-{split}.tsv", ("Argument ID", *CATEGORIES), table)
    folder, printed = small_lab.train("hidden", f"data.dir={tmp_path}", "training.epochs=1")
    assert "test: no argument has a label, so it is predicted and not scored" in printed
    assert json.loads((folder / "scores.json").read_text())["splits"] == {}
    assert predict(folder, split="test") is None
    with pytest.raises(ConfigError, match=r"data\.held_out: the split test has no labels \(or only 0\)"):
        small_lab.train("unchosen", f"data.dir={tmp_path}", "data.held_out=test", "data.report=[validation]")
