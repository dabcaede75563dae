"""The numbers of the study that this package reimplements (arXiv 2403.09720), and its three questions."""

from __future__ import annotations

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
}


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
        (
            "Do aligned large language models know them better?",
            "Not decided by these data: no large language model was run.",
        ),
    ]


def _kind(results: StudyResults, system: str) -> str | None:
    """Whether a system is fine-tuned, or prompted with its network frozen; None where it was not run."""
    runs = results.systems[system].runs
    if not runs:
        return None
    config = config_of(runs[0].folder)
    asks = config.formulation.asks_questions or config.tuning.method in ("prompt", "p_tuning", "prefix")
    return "prompted" if asks and config.tuning.method != "full" else "fine-tuned"


def _known(results: StudyResults) -> str:
    """How the best system compares with naming every category for every argument."""
    sentences = []
    for split, data in results.splits.items():
        best = max(
            (system for system in results.systems.values() if split in system.intervals),
            key=lambda system: system.intervals[split].estimate,
            default=None,
        )
        if best is None:
            continue
        baseline, found = all_ones(data.labels), best.intervals[split]
        place = "above" if found.low > baseline else "not clearly above"
        sentences.append(
            f"On {split} the best system, {best.name}, has an official F1 of {figure(found.estimate)} "
            f"({figure(found.low)} to {figure(found.high)}), {place} the {figure(baseline)} of naming every category "
            "every time."
        )
    return " ".join(sentences) or "Not decided by these data: nothing is finished."


def all_ones(labels: np.ndarray) -> float:
    """The official F1 of predicting every category for every argument of labels [n, C]."""
    return score(labels, np.ones_like(labels)).official_f1
