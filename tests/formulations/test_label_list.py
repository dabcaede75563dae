"""`label_list`: what generated texts name, and what is made of those that name nothing."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from chat_templates import SMOLLM2, chat_tokenizer

from jaxvalues.config import ExamplesConfig, FormulationConfig
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import ConfigError
from jaxvalues.formulations.examples import Examples
from jaxvalues.formulations.label_list import LabelList
from jaxvalues.templates.turns import load_list_template


def label_list(max_length: int = 10**6, examples: int = 0, unparsed: str = "no") -> LabelList:
    config = FormulationConfig(kind="label_list", chat=True, generation={"unparsed": unparsed})
    shown = Examples.make(ExamplesConfig(count=examples), tiny.split()) if examples else None
    template = load_list_template("label_list")
    return LabelList.make(config, chat_tokenizer(SMOLLM2), template, max_length, examples=shown)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Self-direction: thought, Hedonism", ["Self-direction: thought", "Hedonism"]),
        ("1. Achievement\n2. Face (a good image)\n- Tradition", ["Achievement", "Face", "Tradition"]),
        ("* UNIVERSALISM: NATURE;security - societal.", ["Security: societal", "Universalism: nature"]),
        ("The argument is about Benevolence: caring above all.", ["Benevolence: caring"]),
        ("<think>Hedonism?</think>Humility", ["Humility"]),
        ("Achievement, Hedonism, and Face", ["Hedonism", "Achievement", "Face"]),
        ("Achievement and Face.", ["Achievement", "Face"]),
        ("The values: Achievement / Face", ["Achievement", "Face"]),
        ("Answer: Tradition", ["Tradition"]),
        ("The values are Face, Humility and Hedonism.", ["Hedonism", "Face", "Humility"]),
        ("The value is Achievement.", ["Achievement"]),
        ('{"values": ["Face", "Humility"]}', ["Face", "Humility"]),
        ("No values apply.", []),
        ("N/A", []),
        ("(1) Achievement (2) Face", ["Achievement", "Face"]),
        ("None", []),
        ("None of the values apply", []),
        ("none of the above.", []),
    ],
)
def test_names_are_found(text: str, names: list[str]) -> None:
    parsed = label_list().parse(text, "stop")
    assert (parsed.status, [name for name, found in zip(CATEGORIES, parsed.found, strict=True) if found]) == (
        "answered", names,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason", "status"),
    [
        ("We must face it: a tradition of stimulation.", "stop", "unparsed"),  # words of prose, not items
        ("The duty and tradition of a people", "stop", "unparsed"),
        ("Universalism, Power", "stop", "unparsed"),  # several categories have this name
        ("The values in this argument are", "length", "truncated"),
        ("<think>Hedonism, because", "length", "truncated"),
        (" \n", "stop", "empty"),
    ],
)
def test_what_names_nothing_is_counted_and_decided_as_asked(text: str, reason: str, status: str) -> None:
    for unparsed, vote in (("no", -1), ("undecided", 0)):
        one = label_list(unparsed=unparsed)
        parsed = one.parse(text, reason)
        assert parsed.status == status
        assert one.vote(parsed).tolist() == [vote] * 20


def test_votes_are_for_named_categories_against_others() -> None:
    one = label_list()
    votes = one.vote(one.parse("Hedonism", "stop"))
    assert votes[CATEGORIES.index("Hedonism")] == 1
    assert np.count_nonzero(votes == -1) == 19


def test_a_prompt_names_all_values_and_examples_their_own() -> None:
    one = label_list(examples=2)
    text = one.rows.writer.tokenizer.decode(one.encode(tiny.split().arguments[:1]).ids[0])
    assert text.count("; ".join(CATEGORIES)) == 3
    (shown,) = one.rows.examples.of(tiny.split().arguments[:1])
    for example in shown:
        named = [name for name, label in zip(CATEGORIES, example.labels, strict=True) if label]
        assert f"<|im_start|>assistant\n{', '.join(named)}<|im_end|>" in text


def test_prompts_fit_and_what_is_cut_is_counted() -> None:
    whole = label_list(examples=2)
    longest = max(map(len, whole.encode(tiny.split().arguments).ids))
    tokens = label_list(longest - 1, examples=2).encode(tiny.split().arguments)
    assert max(map(len, tokens.ids)) < longest
    assert (tokens.truncated, tokens.fewer_examples > 0) == (0, True)
    with pytest.raises(ConfigError, match=r"the template takes up to \d+ tokens, and data.max_length leaves 50"):
        label_list(50)
