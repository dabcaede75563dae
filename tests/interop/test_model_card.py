"""The model card: what a run was made of and how good it is, in the words and the metadata that readers look for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from finished import config, finish

from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.evaluation.official import Scores
from jaxvalues.interop.model_card import model_card
from jaxvalues.interop.to_hf import export_hf


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    export_hf(finish(folder / "run", config("bert")).path, folder / "hf")
    return folder / "hf"


def card_of(folder: Path, new: Path, **changes: dict) -> str:
    """The card of the same folder whose config has other `changes` in its sections."""
    content = json.loads((folder / "config.json").read_text())
    for section, change in changes.items():
        content["jaxvalues"]["config"][section] |= change
    (new / "config.json").write_text(json.dumps(content))
    (new / "scores.json").write_bytes((folder / "scores.json").read_bytes())
    return model_card(new)


def test_metadata(exported: Path, tmp_path: Path) -> None:
    _, front, _ = (exported / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["library_name"] == "transformers"
    assert (metadata["language"], metadata["pipeline_tag"]) == ("en", "text-classification")
    assert not {"license", "base_model", "datasets"} & metadata.keys()  # a sample, random weights
    card = card_of(exported, tmp_path, data={"source": "touche23"}, model={"path": "someone/bert", "config": None})
    metadata = yaml.safe_load(card.split("---\n", 2)[1])
    assert (metadata["base_model"], metadata["datasets"]) == ("someone/bert", ["webis/Touche23-ValueEval"])
    assert "from someone/bert." in card
    assert "CC BY-SA 4.0" in card


def test_scores_thresholds_and_config(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    results = json.loads((exported / "scores.json").read_text())
    for name, entry in (("test", results["splits"]["test"]), ("held out", results["held_out"])):
        figures = ("official_f1", "macro_precision", "macro_recall", "mean_category_f1")
        assert f"| {name} | {' | '.join(f'{entry[figure]:.3f}' for figure in figures)} |" in card
    ours = json.loads((exported / "config.json").read_text())["jaxvalues"]
    test = Scores.from_json(results["splits"]["test"])
    for name, threshold in zip(CATEGORIES, ours["threshold_probabilities"], strict=True):
        label = test.categories[name]
        found = f"{label.precision:.3f} / {label.recall:.3f} / {label.f1:.3f} ({label.support})"
        assert f"| {name} | {threshold:.3g} | {found} |" in card
    assert "official F1 | macro-precision | macro-recall | mean category F1" in card
    assert "drawn thresholds" in card
    assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0]) == ours["config"]
    assert "random weights, so its scores only show" in card
    assert "$" not in card


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"held_out": "validation"}, "were chosen on\nthe split `validation`."),
        ({"held_out": 0.2}, "were chosen on\na share of 0.2 of that split, held out by conclusion."),
        ({"folds": 5, "fold": 0}, "were chosen on\nfold 0 of 5 of that split, divided by conclusion."),
    ],
)
def test_where_thresholds_come_from(data: dict, sentence: str, exported: Path, tmp_path: Path) -> None:
    assert sentence in card_of(exported, tmp_path, data=data)


def test_the_head_is_explained_where_it_needs_to_be(exported: Path, tmp_path: Path) -> None:
    assert "BertForSequenceClassification has a tanh in it" in (exported / "README.md").read_text()
    export_hf(finish(tmp_path / "run", config("deberta-v2")).path, tmp_path / "hf")
    card = (tmp_path / "hf/README.md").read_text()
    assert "A DebertaV2 classifier" in card
    assert "tanh" not in card
