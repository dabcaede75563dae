"""The numbers of the study that this package reimplements (arXiv 2403.09720), and its three questions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from jaxvalues.config import Config
from jaxvalues.errors import name_list
from jaxvalues.evaluation.official import score
from jaxvalues.report.words import figure, interval, resampled, verdict
from jaxvalues.statistics.interval import LEVEL, Interval
from jaxvalues.statistics.tests import holm, t_test
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

_NO_PART_OF_A_ROW = ("seed", "init_seed", "data.dir", "data.held_out", "logging", "runtime", "output")
"""Config keys that a study may set for a system that is still a row of the study of 2024."""


def paper_row(study: Study, system: str) -> str | None:
    """The row of the study that a system is; None for a system of its own.

    Its config file in configs/paper says so. Whatever else decides its numbers must be as in that file: no other
    changes, nuisance keys or repeated keys, and no budget.
    """
    changes = study.scientific.systems.get(system)
    if changes is None or study.budget is not None:
        return None
    base = changes.get("base", study.base)
    own = {key: value for key, value in changes.items() if key != "base"}
    keys = {*_keys(study.changes), *_keys(own), *study.nuisance.keys, *study.repeated}
    if base is None or Path(base).parent.name != "paper" or not all(map(_is_no_part, keys)):
        return None
    return _CONFIGS.get(Path(base).stem)


def _keys(settings: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """The dotted keys of settings, which may be nested: {"data": {"dir": ...}} has data.dir."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _keys(value, f"{within}{key}.")
        else:
            yield f"{within}{key}"


def _is_no_part(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in _NO_PART_OF_A_ROW)


def three_questions(results: StudyResults) -> list[tuple[str, str]]:
    """The three questions of the study, each with what the contrasts here say about it."""
    first = "Fine-tuning or prompting?"
    compared = [
        one for one in results.contrasts if {_kind(results, one.a), _kind(results, one.b)} == {"fine-tuned", "prompted"}
    ]
    said = " ".join(f"On {one.split}: {verdict(one)}" for one in compared)
    unknown = (
        "Not decided by these data: no contrast of this study compares a fine-tuned system with a prompted one, a "
        "frozen language model that is asked questions."
    )
    return [
        (first, said or unknown),
        ("Do pre-trained language models know human values?", _known(results, results.systems)),
        ("Do aligned large language models know them better?", _aligned(results)),
    ]


def _pretrained(results: StudyResults, system: str) -> Config | None:
    """The config of a system that starts from pre-trained weights; None for random weights and without a run."""
    runs = results.systems[system].runs
    config = config_of(runs[0].folder) if runs else None
    return config if config is not None and config.model.config is None else None


def _asked(results: StudyResults, system: str) -> tuple[str | None, ...] | None:
    """The pre-trained model of a system in which nothing trains; None for any other."""
    config = _pretrained(results, system)
    if config is None or config.tuning.method != "none":
        return None
    return (config.model.endpoint, config.model.id or config.model.path, config.model.revision)


def _kind(results: StudyResults, system: str) -> str | None:
    """Whether a system is fine-tuned, or a prompted language model; None for any other.

    A prompted one is frozen and asked questions. A classifier with a soft prompt is neither.
    """
    config = _pretrained(results, system)
    if config is None:
        return None
    if config.tuning.method not in _PROMPTING:
        return "fine-tuned"
    return "prompted" if config.formulation.asks_questions else None


def _is_aligned(results: StudyResults, system: str) -> bool:
    """Whether a system is a language model that follows instructions, and nothing of it trains."""
    config = _pretrained(results, system)
    if config is None:
        return False
    return config.tuning.method == "none" and (config.formulation.chat or config.model.endpoint is not None)


def _aligned(results: StudyResults) -> str:
    """What contrasts with aligned language models say, or how these compare with naming everything."""
    aligned = {name for name in results.systems if _is_aligned(results, name)}
    if not aligned:
        return "Not decided by these data: no aligned language model was run."
    others = {name for name in results.systems if _pretrained(results, name) is not None} - aligned
    asked = {_asked(results, name) for name in aligned}  # also without its chat format, such a model is no other one
    others -= {name for name in others if _asked(results, name) in asked}
    compared = [one for one in results.contrasts if len({one.a, one.b} & aligned) == len({one.a, one.b} & others) == 1]
    said = " ".join(f"On {one.split}: {verdict(one)}" for one in compared)
    return said or (
        "Not decided by these data: no contrast of this study compares an aligned language model with another "
        f"pre-trained system. {_known(results, aligned)}"
    )


def _known(results: StudyResults, names: Collection[str]) -> str:
    """Which of these systems are better or worse than naming every category for every argument.

    Systems of random weights are left out. The p are those that belong to the intervals, adjusted over the systems.
    """
    if not any(results.systems[name].intervals for name in names):
        return "Not decided by these data: nothing is finished."
    known = {name: results.systems[name] for name in names if _pretrained(results, name) is not None}
    if not known:
        return "Not decided by these data: no system here starts from pre-trained weights."
    return " ".join(
        _beside_all_ones(split, all_ones(data.labels), found, resampled(results))
        for split, data in results.splits.items()
        if (found := {name: one.intervals[split] for name, one in known.items() if split in one.intervals})
    )


def _beside_all_ones(split: str, baseline: float, found: Mapping[str, Interval], over: str) -> str:
    """Which systems have an official F1 above or below the baseline, the best first; their intervals are `over`."""
    ordered = dict(sorted(found.items(), key=lambda item: -item[1].estimate))
    adjusted = dict(zip(ordered, holm([_p_against(baseline, one) for one in ordered.values()]), strict=True))
    groups: dict[str, list[str]] = {"Above it": [], "Below it": [], "Not decided": []}
    for name, one in ordered.items():
        place = "Above it" if one.estimate > baseline else "Below it"
        groups[place if adjusted[name] < LEVEL else "Not decided"].append(f"{name}, {interval(one)}")
    said = [f"{place}: {name_list(some, separator='; ')}." for place, some in groups.items() if some]
    test = "5 %" if len(found) == 1 else f"5 %, adjusted over {len(found)} systems by Holm"
    start = f"On {split}, naming every category every time has an official F1 of {figure(baseline)}."
    return f"{start} {' '.join(said)} (Pre-trained systems, with 95 % intervals over {over}; {test}.)"


def _p_against(value: float, one: Interval) -> float:
    """The p of an estimate against a value: it is .05 where the value is an end of the interval of 95 %."""
    reach = float(stats.t.ppf(1 - LEVEL / 2, one.df)) * one.se
    # The interval is around the estimate and around what it is without its bias: the nearer one counts.
    distance = max(one.low + reach - value, 0.0) if one.estimate > value else max(value - (one.high - reach), 0.0)
    return t_test(distance, one.se, one.df).p


def all_ones(labels: np.ndarray) -> float:
    """The official F1 of predicting every category for every argument of labels [n, C]."""
    return score(labels, np.ones_like(labels)).official_f1
