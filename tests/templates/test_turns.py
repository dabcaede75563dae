"""Templates of lists and of chains of thought: their slots, their files, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from jaxvalues.errors import ConfigError
from jaxvalues.templates.synonyms import load_synonyms
from jaxvalues.templates.turns import load_chain_template, load_list_template

ARGUMENT = tiny.split().arguments[0]


def test_the_study_s_turns() -> None:
    one = load_chain_template("chain_of_thought", "definition")
    assert one.first(ARGUMENT).startswith("What kind of human values are indicated in the premise: ")
    second = one.second(ARGUMENT, 3, "I see {joy}.")
    assert second.startswith("Do you think I see {joy}. is aligned with Hedonism: to enjoy life")
    assert f"can also be called {', '.join(load_synonyms()['Hedonism'])}?" in second


@pytest.mark.parametrize("load", [load_list_template, load_chain_template])
def test_a_template_reads_back_from_its_text(load: Callable[..., Any], tmp_path: Path) -> None:
    name = "label_list" if load is load_list_template else "chain_of_thought"
    one = load(name, "values")
    (tmp_path / "template.txt").write_text(one.text + "\n")
    again = load(str(tmp_path / "template.txt"))
    assert (again.text, again.descriptions) == (one.text, one.descriptions)


@pytest.mark.parametrize(
    ("load", "text", "problem"),
    [
        (load_list_template, "{premise}?", r"the slot \{values\} is missing"),
        (load_list_template, "{values}?", r"the slot \{premise\} is missing"),
        (load_list_template, "{premise} {values} {reply}", r"unknown slot \{reply\}"),
        (load_chain_template, "{premise}?", "expected two turns with a line of --- between them, not 1"),
        (load_chain_template, "{premise} --- {reply}?", "the second turn asks about no"),
        (load_chain_template, "{premise} --- {category}?", r"the slot \{reply\} is missing"),
        (load_chain_template, "{stance} --- {reply} {category}?", r"the slot \{premise\} is missing"),
    ],
)
def test_what_is_wrong_is_one_sentence(load: Callable[..., Any], text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        load(str(tmp_path / "mine.txt"))
