"""The code on a model card gives the token ids of the run, however long or unusual an argument is."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import tiny
from kinds import byte_level, unigram, wordpiece
from snippets import functions

from jaxvalues.config import FormulationConfig, VerbalizerConfig
from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.formulations.answer import Answer
from jaxvalues.formulations.classify import Classify
from jaxvalues.formulations.masked_choice import MaskedChoice
from jaxvalues.interop.to_peft import question_settings
from jaxvalues.templates.questions import load_question_template
from jaxvalues.templates.template import STANCES, load_template

UNUSUAL = [
    "禁止捕鲸因为鲸鱼是有智慧的动物" * 9,
    "https://example.org/" + "a-very-long-path/" * 12,
    "e\u0301\u0323" * 60,
    "👩‍👩‍👧‍👦🇩🇪👍🏽" * 20,
    "नमस्ते" * 25,
    "word",
    "fast\u00a0food",
    "</s>",
    "[SEP] [MASK] <mask>",
    "{premise} {{sep}}",
    "$$HOME \\N",
    "  two  blanks ",
]


def arguments(count: int = 60) -> list[Argument]:
    """Arguments of a few usual or unusual words each, some empty."""
    draw = random.Random(0)

    def text() -> str:
        return " ".join(draw.choices([*UNUSUAL, "ban", "people", "because"], k=draw.randrange(7)))

    return [Argument(f"A{i}", text(), draw.choice((IN_FAVOR, AGAINST)), text() or "so") for i in range(count)]


@pytest.mark.parametrize("kind", [byte_level, wordpiece, unigram])
@pytest.mark.parametrize("max_length", [6, 24, 60])
def test_a_classifier_reads_the_same_ids(kind: Any, max_length: int, tmp_path: Path) -> None:
    tokenizer, template = kind(tmp_path), load_template("cls")
    tokens = Classify(tokenizer, template, max_length).encode(arguments())
    assert tokens.truncated > 30
    settings = {"template": template.text, "stances": STANCES, "max_length": max_length}
    encode = functions("usage_classify.md", tokenizer, settings)["encode"]
    for argument, ids in zip(arguments(), tokens.ids, strict=True):
        assert encode(argument.conclusion, argument.stance, argument.premise) == ids.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["branching answer", "answer", "masked_choice"])
def test_questions_read_the_same_ids(form: str) -> None:
    tokenizer, kind = tiny.asking_tokenizer(), form.rpartition(" ")[2]
    template, config = load_question_template(kind), FormulationConfig(kind=kind, verbalizer=VerbalizerConfig())
    if kind == "answer":
        formulation: Any = Answer.make(config, tokenizer, template, 90, is_causal=form != kind)
    else:
        formulation = MaskedChoice.make(config, tokenizer, template, 90)
    rows = formulation.question_rows
    assert rows.branches == (form != kind)
    tokens = formulation.encode(arguments(20))
    assert tokens.truncated > 5
    settings = {"stances": STANCES, **question_settings(rows)}
    encode = functions("usage_answer.md", tokenizer, settings)["encode"]
    for row, (at, categories) in enumerate(zip(tokens.questions.argument, tokens.questions.categories, strict=True)):
        one = arguments(20)[at]
        for category in categories:
            ids = tokens.ids[row].tolist()
            if rows.branches:
                branch = tokens.questions.question_ids[category]
                ids += branch[branch >= 0].tolist()
            assert encode(int(category), one.conclusion, one.stance, one.premise) == ids


def test_categories_are_in_the_order_of_the_task() -> None:
    assert functions("usage_classify.md", None, {})["categories"] == list(CATEGORIES)
