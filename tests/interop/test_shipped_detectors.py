"""The detectors that come with the package: whole, small, with a card, and as good on the sample as they were."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from runs import command

from jaxvalues.data.loading import load_split
from jaxvalues.evaluation.official import score
from jaxvalues.evaluation.predictions import read_predictions
from jaxvalues.run.detector import Detector
from jaxvalues.run.manifest import check_manifest
from jaxvalues.run.shipped import ABOUT, DETECTORS

SHIPPED = sorted(path.parent for path in DETECTORS.glob(f"*/{ABOUT}"))
names = pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)


@names
def test_it_is_whole_and_small(folder: Path) -> None:
    check_manifest(folder)
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 500_000
    about = Detector(folder).about()
    assert about.trained > 0
    assert about.intervals.keys() == {"validation", "test"}


@names
def test_its_card_states_data_licence_scores_and_limits(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["splits"]
    assert "license: cc-by-sa-4.0" in card
    assert "## Limits" in card
    for split, one in Detector(folder).about().intervals.items():
        low, high = one["interval"]
        row = f"| {split} | {scores[split]['official_f1']:.3f} | {low:.3f} to {high:.3f} |"
        assert row in card
    assert not re.search(r"(^|[\s\"'])/\w+/", "".join(file.read_text() for file in folder.rglob("*.yaml")))


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiles")
def test_minilm_values_on_the_sample(tmp_path: Path, minilm: Path) -> None:
    split = load_split("test", source="sample")
    with (tmp_path / "mine.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("Argument ID", "Conclusion", "Stance", "Premise"))
        table.writerows((one.id, one.conclusion, one.stance, one.premise) for one in split.arguments)
    words = ("--input", tmp_path / "mine.csv", "--out", tmp_path / "out", f"model.path={minilm}")
    code, _, err = command("predict", "--model", "minilm-values", *words)
    assert code == 0, err
    decided = read_predictions(tmp_path / "out/predictions-mine.tsv").probabilities > 0.5
    assert score(split.labels, decided).official_f1 > 0.5
