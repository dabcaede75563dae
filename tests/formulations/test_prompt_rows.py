"""Prompts of causal language models: their tokens are those of the whole text, however they are divided."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny
from chat_templates import STYLES, chat_tokenizer

from jaxvalues.config import ExamplesConfig, FormulationConfig
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.formulations.examples import Examples
from jaxvalues.formulations.prompt_rows import PromptRows, language_model_rows
from jaxvalues.formulations.rows import Row
from jaxvalues.templates.chat import chat_ids
from jaxvalues.templates.questions import load_question_template

ARGUMENTS = tiny.split().arguments[:25]


def rows(style: str | None = "smollm2", max_length: int = 10**6, examples: int = 0, **changes: Any) -> PromptRows:
    config = FormulationConfig(kind="answer", chat=style is not None, **changes)
    template = load_question_template(config.default_template("values"), "definition")
    shown = Examples.make(ExamplesConfig(count=examples), tiny.split()) if examples else None
    tokenizer = chat_tokenizer(style and STYLES[style])
    return language_model_rows(config, tokenizer, template, max_length, is_causal=True, tokens=1, examples=shown)


def joined(rows: PromptRows) -> list[list[Row]]:
    tokens = rows.encode(ARGUMENTS)
    branches = [branch[branch >= 0].tolist() for branch in tokens.questions.question_ids]
    return [[[*row.tolist(), *branch] for branch in branches] for row in tokens.ids]


@pytest.mark.parametrize("style", STYLES)
def test_branches_are_the_whole_conversations_tokenised(style: str) -> None:
    one = rows(style, system="You judge arguments.", stem="The answer is")
    for argument, asked in zip(ARGUMENTS, joined(one), strict=True):
        for category, row in enumerate(asked):
            text = one.template.context(argument) + one.template.question(category, argument)[0]
            messages = [{"role": "system", "content": "You judge arguments."}, {"role": "user", "content": text}]
            assert row == chat_ids(one.tokenizer, messages, stem="The answer is")


def test_a_branch_begins_where_the_questions_differ() -> None:
    one = rows()
    branches = [branch[branch >= 0].tolist() for branch in one.encode(ARGUMENTS).questions.question_ids]
    assert len({branch[0] for branch in branches}) > 1
    assert one.tokenizer.decode(branches[0]).startswith("Self-direction: thought: to have ideas")
    assert one.tokenizer.decode(branches[0]).endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("style", ["smollm2", None])
def test_examples_stand_before_the_question_with_their_answers(style: str | None) -> None:
    one, none = rows(style, examples=2), rows(style)
    for argument, asked in zip(ARGUMENTS[:3], joined(one), strict=False):
        text = one.tokenizer.decode(asked[7])
        assert text.endswith(one.tokenizer.decode(joined(none)[0][7])[-60:])
        assert text.count("Given the premise") == 3
        assert one.prompt(argument, 7) == asked[7]
        said = [" Yes\n\n", " No\n\n"] if style is None else ["\nYes<|im_end|>", "\nNo<|im_end|>"]
        assert [text.count(one) for one in said] == [1, 1]


def test_examples_are_left_out_for_long_arguments_and_counted() -> None:
    whole = rows(examples=2)
    lengths = sorted(len(row) for asked in joined(whole) for row in asked)
    some, none = rows(examples=2, max_length=lengths[-1] - 1), rows(examples=2, max_length=250)
    tokens = some.encode(ARGUMENTS)
    assert (tokens.truncated, 0 < tokens.fewer_examples < 25) == (0, True)
    assert tokens.examples_left_out == tokens.fewer_examples  # one each: the limit is a token below the longest
    assert max(map(len, tokens.ids)) <= some.max_row_length
    tokens = none.encode([replace(ARGUMENTS[0], premise="whales feel " * 200)])
    assert (tokens.truncated, tokens.fewer_examples, tokens.examples_left_out) == (1, 1, 2)
    assert len(tokens.ids[0]) <= none.max_row_length


def test_questions_that_hang_on_the_argument_cannot_share_it() -> None:
    one = rows()
    one.tokenizer.chat_template += "{% if 'valueSelf-' in messages[0]['content'] %}Think of yourself.{% endif %}"
    with pytest.raises(UserError, match="the tokens of a question depend on the argument before it"):
        one.encode([replace(ARGUMENTS[0], premise="valueSelf-")])


def test_a_chat_is_for_causal_models() -> None:
    with pytest.raises(ConfigError, match=r"formulation\.chat is for causal language models"):
        language_model_rows(
            FormulationConfig(kind="answer", chat=True), chat_tokenizer(None), load_question_template("answer"), 500,
            is_causal=False, tokens=1,
        )  # fmt: skip
