"""The model card of an exported run: README.md with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from types import MappingProxyType, ModuleType
from typing import Any

import yaml

from jaxvalues.config.reading import read_json
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.evaluation.official import LabelScore, Scores
from jaxvalues.templates import truncation

_RANDOM = "random weights, so its scores only show that the software works"
_HEAD_BELOW_TANH = """\
- The trained head is linear, but {architecture} has a tanh in its head. Its dense
  layer is therefore a tiny multiple of the identity, where tanh is linear, and the classifier's weights are larger by
  the same factor. float32 and bfloat16 represent such numbers well; float16 does not. To train further with torch,
  replace the head: no learning rate suits this one."""


_ATTRIBUTION = """\
Its authors are Mirzakhmedova et al. (below); it is
published at <https://doi.org/10.5281/zenodo.6814563>, its licence at <https://creativecommons.org/licenses/by-sa/4.0/>.
No text of it is in this folder."""
_FEW_NUMBERS = """\
- Only few numbers were trained. What the base network does not know of arguments and values is not known here."""
_LOAD_NETWORK = """\
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # this folder, or the model's name on the hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
settings = model.config.jaxvalues  # template, maximum length, thresholds
categories = list(model.config.label2id)"""
_IMPORT = """\
To use this folder with jaxvalues: `jaxvalues import FOLDER --out RUN`, then
`jaxvalues predict RUN --input arguments.tsv`."""
_LOAD_ADAPTER = """\
import json

import torch
from peft import PeftModel
from transformers import $auto, AutoTokenizer

folder = "."  # this folder
base = $base
with open(f"{folder}/jaxvalues.json", encoding="utf-8") as file:
    settings = json.load(file)  # template, maximum length, thresholds, settings of the base model
tokenizer = AutoTokenizer.from_pretrained(folder)
model = PeftModel.from_pretrained($auto.from_pretrained(base, **settings["model"]), folder).eval()
categories = settings["categories"]"""
# Code for the logits [V] of a language model at the answer of a question.
_ANSWER_LOGITS = {
    "AutoModelForCausalLM": "model(input_ids=ids, attention_mask=mask).logits[0, -1]",
    "AutoModelForMaskedLM": "model(input_ids=ids, attention_mask=mask).logits[0, row.index(tokenizer.mask_token_id)]",
    "AutoModelForSeq2SeqLM": """\
model(
                input_ids=ids,
                attention_mask=mask,
                decoder_input_ids=torch.tensor([[settings["decoder_start_token_id"]]]),
            ).logits[0, -1]""",
}


def model_card(folder: Path) -> str:
    """The model card of an exported network, from its config.json and scores.json."""
    hf_config = _read(folder / "config.json")
    ours, architecture = hf_config["jaxvalues"], hf_config["architectures"][0]
    has_tanh = hf_config.get("pooler_hidden_act") != "linear"
    return _card(
        folder,
        ours,
        metadata={"library_name": "transformers", "pipeline_tag": "text-classification"},
        base=ours["config"]["model"]["path"],
        what=f"A {architecture.removesuffix('ForSequenceClassification')} classifier",
        usage=usage("usage_classify.md", load=_LOAD_NETWORK, note=_IMPORT),
        head=_HEAD_BELOW_TANH.format(architecture=architecture) if has_tanh else "",
    )


def adapter_card(folder: Path) -> str:
    """The model card of an exported adapter, from its adapter_config.json, jaxvalues.json and scores.json."""
    adapter, ours = _read(folder / "adapter_config.json"), _read(folder / "jaxvalues.json")
    kind, name, auto = ours["config"]["formulation"]["kind"], adapter["base_model_name_or_path"], ours["auto_class"]
    if ours["config"]["model"]["config"]:
        base, note = 'f"{folder}/base"  # random weights, saved with this adapter', ""
    elif ours["config"]["model"]["path"]:
        base, note = f'"{name}"  # its name on the hub', ""
    else:
        base, note = (
            f'"{name}"  # the path of its folder',
            f"The base model is a local checkpoint; its folder was called `{name}` in training.",
        )
    load = Template(_LOAD_ADAPTER).substitute(auto=auto, base=base)
    if kind == "classify":
        use = usage("usage_classify.md", load=load, note=note)
    elif "words" in ours:
        use = usage("usage_answer.md", load=load, note=note, answer_logits=_ANSWER_LOGITS[auto])
    else:
        how = "the likelihood of the synonyms" if kind == "open_answer" else "words of several tokens, or calibrated"
        how = f"scores answers by {how}"
        if ours["config"]["formulation"].get("chat"):
            how = "asks its questions in a chat"
        note += f"\n\nThis run {how}, which takes more code: use `jaxvalues predict` for probabilities."
        use = f"```python\n{load}\n```\n\n{note.strip()}"
    return _card(
        folder,
        ours,
        metadata={"library_name": "peft"},
        base=name if ours["config"]["model"]["path"] else None,
        what=f"An adapter ({adapter['peft_type']}) for a {ours['model_type']} model",
        usage=use,
        head="",
    )


def detector_card(folder: Path, ours: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The card of a detector, from its scores.json, its inference settings and the content of its detector.json."""
    base, method, trained = about["base"], ours["config"]["tuning"]["method"], about["trained"]
    return _card(
        folder,
        ours,
        metadata={"library_name": "jaxvalues"},
        base=base,
        what=f"A detector ({method}, {trained:,} trained parameters)",
        usage=_text("usage_detector.md", name=ours["config"]["name"], base=base, tensors=about["tensors"]),
        head=_FEW_NUMBERS,
        intervals=about["intervals"],
    )


def _card(
    folder: Path,
    ours: Mapping[str, Any],
    *,
    metadata: dict[str, str],
    base: str | None,
    what: str,
    usage: str,
    head: str,
    intervals: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """The model card with the parts that all cards share. `usage` is the Markdown of its section on use; `intervals`
    are those of the official F1, {split: {"interval": [low, high], "conclusions": number}}."""
    config, results = ours["config"], _read(folder / "scores.json")
    model, is_sample = config["model"], config["data"]["source"] == "sample"
    splits = {name: Scores.from_json(entry) for name, entry in results["splits"].items()}
    splits["held out"] = Scores.from_json(results["held_out"])
    metadata = {
        "language": "en",
        **metadata,
        "tags": ["human-values", "argument-mining", "multi-label-classification", "jaxvalues"],
        **({} if is_sample else {"datasets": ["webis/Touche23-ValueEval"]}),
        "metrics": ["f1", "precision", "recall"],
        **({"base_model": base} if base else {}),
    }
    return _text(
        "model_card.md",
        metadata=_yaml(metadata),
        name=config["name"],
        what=what,
        usage=usage.strip(),
        version=ours["version"],
        origin=_RANDOM if model["config"] else base or "a pretrained model",
        scores=_summary(splits, intervals),
        decision=ours["decision"],
        categories=_categories(splits, ours["threshold_probabilities"]),
        data="the small sample that comes with jaxvalues" if is_sample else "Touché23-ValueEval",
        train=config["data"]["train"],
        held_out=_held_out(config["data"]),
        config=_yaml(config),
        dtype=model["dtype"],
        head=head,
        attribution="" if is_sample else _ATTRIBUTION,
        data_licence="of that sample is Apache-2.0" if is_sample else "of the data is CC BY-SA 4.0",
    )


def _text(file: str, /, **slots: str) -> str:
    """The text of a Markdown file of this package, with its slots filled in."""
    return Template(files("jaxvalues.interop").joinpath(file).read_text(encoding="utf-8")).substitute(slots)


def usage(file: str, **slots: str) -> str:
    """The section on use in a Markdown file of this package, whose code truncates and tokenises as a run does."""
    shared = _text("usage_input.md", truncation=_code(truncation)).strip()
    return _text(file, input=shared, **slots)


def _code(module: ModuleType) -> str:
    """The code of a module below its imports."""
    source = inspect.getsource(module)
    body = [node for node in ast.parse(source).body if not isinstance(node, ast.Expr | ast.ImportFrom | ast.Import)]
    return "\n".join(source.splitlines()[body[0].lineno - 1 :])


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, "what an export holds")


def _held_out(data: Mapping[str, Any]) -> str:
    if isinstance(data["held_out"], str):
        return f"the split `{data['held_out']}`"
    if data["folds"] is not None:
        return f"fold {data['fold']} of {data['folds']} of that split, divided by {data['held_out_by']}"
    return f"a share of {data['held_out']:g} of that split, held out by {data['held_out_by']}"


def _summary(splits: Mapping[str, Scores], intervals: Mapping[str, Any]) -> str:
    header = ("split", "official F1", "macro-precision", "macro-recall", "mean category F1")
    figures = ((s.official_f1, s.macro_precision, s.macro_recall, s.mean_category_f1) for s in splits.values())
    rows = [(name, *map(_figure, row)) for name, row in zip(splits, figures, strict=True)]
    if not intervals:
        return _table(header, rows)
    spans = {name: "{:.3f} to {:.3f}".format(*one["interval"]) for name, one in intervals.items()}
    rows = [(name, f1, spans.get(name, "–"), *rest) for name, f1, *rest in rows]
    sizes = ", ".join(f"{one['conclusions']} of {name}" for name, one in intervals.items())
    note = f"Intervals of the official F1 resample conclusions ({sizes}). Thresholds were chosen on what is held out."
    return _table((*header[:2], "95 % interval", *header[2:]), rows) + f"\n\n{note}"


def _categories(splits: Mapping[str, Scores], thresholds: Sequence[float]) -> str:
    rows = (
        (name, f"{threshold:.3g}", *(_cell(scores.categories[name]) for scores in splits.values()))
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
