"""The model card of an exported run: its README.md, with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import yaml

from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.evaluation.official import LabelScore, Scores

_RANDOM = "random weights, which shows that things work and not what such models can do"
_HEAD_BELOW_TANH = """\
- The head is linear, and {architecture} has a tanh in it. So its dense layer is a tiny
  multiple of the identity, where tanh changes nothing, and the classifier's weights are as much larger. float32 and
  bfloat16 hold such numbers; float16 is coarse there. To train further with torch, give it a new head: no learning rate
  suits this one."""


def model_card(folder: Path) -> str:
    """The card of an exported folder, from what its config.json and scores.json say."""
    hf_config, results = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("config.json", "scores.json")
    )
    ours = hf_config["jaxvalues"]
    config = ours["config"]
    model, is_sample = config["model"], config["data"]["source"] == "sample"
    architecture = hf_config["architectures"][0]
    splits = {name: Scores.from_json(entry) for name, entry in results["splits"].items()}
    splits["held out"] = Scores.from_json(results["held_out"])
    metadata = {
        "language": "en",
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["human-values", "argument-mining", "multi-label-classification", "jaxvalues"],
        **({} if is_sample else {"datasets": ["webis/Touche23-ValueEval"]}),
        "metrics": ["f1", "precision", "recall"],
        **({"base_model": model["path"]} if model["path"] else {}),
    }
    text = files("jaxvalues.interop").joinpath("model_card.md").read_text(encoding="utf-8")
    return Template(text).substitute(
        metadata=_yaml(metadata),
        name=config["name"],
        model_type=architecture.removesuffix("ForSequenceClassification"),
        version=ours["version"],
        origin=_RANDOM if model["config"] else model["path"] or "a pretrained encoder",
        scores=_summary(splits),
        decision=ours["decision"],
        categories=_categories(splits, ours["thresholds"]),
        data="the small sample that comes with jaxvalues" if is_sample else "Touché23-ValueEval",
        train=config["data"]["train"],
        held_out=_held_out(config["data"]),
        config=_yaml(config),
        dtype=model["dtype"],
        head=""
        if hf_config.get("pooler_hidden_act") == "linear"
        else _HEAD_BELOW_TANH.format(architecture=architecture),
        data_licence="of that sample is Apache-2.0" if is_sample else "of the data is CC BY-SA 4.0",
    )


def _held_out(data: Mapping[str, Any]) -> str:
    if isinstance(data["held_out"], str):
        return f"the split `{data['held_out']}`"
    if data["folds"] is not None:
        return f"fold {data['fold']} of {data['folds']} of that split, cut by {data['held_out_by']}"
    return f"a share of {data['held_out']:g} of that split, held out by {data['held_out_by']}"


def _summary(splits: Mapping[str, Scores]) -> str:
    header = ("split", "official F1", "macro-precision", "macro-recall", "mean category F1")
    figures = ((s.official_f1, s.macro_precision, s.macro_recall, s.mean_category_f1) for s in splits.values())
    return _table(header, [(name, *map(_figure, row)) for name, row in zip(splits, figures, strict=True)])


def _categories(splits: Mapping[str, Scores], thresholds: Sequence[float]) -> str:
    rows = (
        (name, f"{threshold:.2f}", *(_cell(scores.categories[name]) for scores in splits.values()))
        for name, threshold in zip(CATEGORIES, thresholds, strict=True)
    )
    return _table(("category", "threshold", *splits), rows)


def _cell(label: LabelScore) -> str:
    return f"{' / '.join(map(_figure, (label.precision, label.recall, label.f1)))} ({label.support})"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (header, ["---", *["---:"] * (len(header) - 1)], *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _yaml(tree: Any) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).rstrip()
