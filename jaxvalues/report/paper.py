"""The numbers of the study that this package reimplements (arXiv 2403.09720), and its three questions."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from jaxvalues.evaluation.official import score
from jaxvalues.report.words import figure, verdict
from jaxvalues.study.reading import config_of
from jaxvalues.study.results import StudyResults
from jaxvalues.study.schema import Study

ROWS: dict[str, float] = {
    "RoBERTa-large, single head": 0.481,
    "RoBERTa-large, multiple heads": 0.507,
    "DeBERTa-large, single head": 0.477,
    "DeBERTa-large, multiple heads": 0.493,
    "RoBERTa-large, contrastive pre-training": 0.518,
    "RoBERTa-large, contrastive, joint": 0.522,
    "RoBERTa-CLS": 0.54,
    "DeBERTa-CLS": 0.52,
    "RoBERTa-MBC": 0.47,
    "T5-base BCA": 0.45,
    "T5-base OA": 0.45,
    "T5-large BCA": 0.52,
    "T5-large OA": 0.50,
    "GPT2-medium BCA": 0.42,
    "GPT2-medium OA": 0.44,
    "GPT2-large BCA": 0.46,
    "GPT2-large OA": 0.48,
    "Llama-7B, CoT": 0.49,
    "ChatGPT, CoT": 0.53,
}
"""{row: mean F1 of the categories on validation}, section 4 of the study; the last two on 5 % of validation."""

_CONFIGS = {
    "roberta-large-single-head": "RoBERTa-large, single head",
    "roberta-large-multi-head": "RoBERTa-large, multiple heads",
    "deberta-large-single-head": "DeBERTa-large, single head",
    "deberta-large-multi-head": "DeBERTa-large, multiple heads",
    "roberta-large-contrastive-pretrain": "RoBERTa-large, contrastive pre-training",
    "roberta-large-contrastive-joint": "RoBERTa-large, contrastive, joint",
    "roberta-cls": "RoBERTa-CLS",
    "deberta-cls": "DeBERTa-CLS",
    "roberta-mbc": "RoBERTa-MBC",
    "t5-base-bca": "T5-base BCA",
    "t5-base-oa": "T5-base OA",
    "t5-large-bca": "T5-large BCA",
    "t5-large-oa": "T5-large OA",
    "gpt2-medium-bca": "GPT2-medium BCA",
    "gpt2-medium-oa": "GPT2-medium OA",
    "gpt2-large-bca": "GPT2-large BCA",
    "gpt2-large-oa": "GPT2-large OA",
    "llama2-7b-chat-cot": "Llama-7B, CoT",
    "chatgpt-cot": "ChatGPT, CoT",
}


_PROMPTING = ("none", "prompt", "p_tuning", "prefix")
"""Tuning methods that change what a frozen network reads, and nothing in it."""


def paper_row(study: Study, system: str) -> str | None:
    """The row of the study that a system is; None for a system of its own. Its config file in configs/paper says so."""
    changes = study.scientific.systems.get(system, {})
    base = changes.get("base", study.base)
    if base is None or Path(base).parent.name != "paper" or set(changes) - {"base"}:
        return None
    return _CONFIGS.get(Path(base).stem)


def three_questions(results: StudyResults) -> list[tuple[str, str]]:
    """The three questions of the study, each with what the contrasts here say about it."""
    first = "Fine-tuning or prompting?"
    compared = [
        one for one in results.contrasts if {_kind(results, one.a), _kind(results, one.b)} == {"fine-tuned", "prompted"}
    ]
    said = " ".join(f"On {one.split}: {verdict(one)}" for one in compared)
    unknown = "Not decided by these data: no contrast of this study compares a fine-tuned with a prompted system."
    return [
        (first, said or unknown),
        ("Do pre-trained language models know human values?", _known(results)),
        ("Do aligned large language models know them better?", _aligned(results)),
    ]


def _kind(results: StudyResults, system: str) -> str | None:
    """Whether a system is fine-tuned, or prompted with its network frozen; None where it was not run."""
    runs = results.systems[system].runs
    if not runs:
        return None
    return "prompted" if config_of(runs[0].folder).tuning.method in _PROMPTING else "fine-tuned"


def _is_aligned(results: StudyResults, system: str) -> bool:
    """Whether a system is a language model that follows instructions, and nothing of it trains."""
    runs = results.systems[system].runs
    if not runs:
        return False
    config = config_of(runs[0].folder)
    return config.tuning.method == "none" and (config.formulation.chat or config.model.endpoint is not None)


def _aligned(results: StudyResults) -> str:
    """What contrasts with aligned language models say, or how the best of them compares with naming everything."""
    aligned = {name for name in results.systems if _is_aligned(results, name)}
    if not aligned:
        return "Not decided by these data: no aligned language model was run."
    compared = [one for one in results.contrasts if (one.a in aligned) != (one.b in aligned)]
    said = " ".join(f"On {one.split}: {verdict(one)}" for one in compared)
    return said or (
        "Not decided by these data: no contrast of this study compares an aligned language model with another system. "
        f"{_known(results, aligned)}"
    )


def _known(results: StudyResults, names: Collection[str] | None = None) -> str:
    """How the best system, or the best of these, compares with naming every category for every argument."""
    one_of = "best system" if names is None else "best of them"
    sentences = []
    for split, data in results.splits.items():
        best = max(
            (
                system
                for name, system in results.systems.items()
                if split in system.intervals and (names is None or name in names)
            ),
            key=lambda system: system.intervals[split].estimate,
            default=None,
        )
        if best is None:
            continue
        baseline, found = all_ones(data.labels), best.intervals[split]
        place = "above" if found.low > baseline else "not clearly above"
        sentences.append(
            f"On {split} the {one_of}, {best.name}, has an official F1 of {figure(found.estimate)} "
            f"({figure(found.low)} to {figure(found.high)}), {place} the {figure(baseline)} of naming every category "
            "every time."
        )
    return " ".join(sentences) or "Not decided by these data: nothing is finished."


def all_ones(labels: np.ndarray) -> float:
    """The official F1 of predicting every category for every argument of labels [n, C]."""
    return score(labels, np.ones_like(labels)).official_f1
