"""Templates: the study's own words, slots, and what a user's file can get wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument
from jaxvalues.data.template import load_template
from jaxvalues.errors import ConfigError

ARGUMENT = Argument("A1", "We should ban {whaling}", AGAINST, "whales  are {sep} tasty")


def test_the_cls_template_is_the_studys() -> None:
    assert load_template("cls").render(ARGUMENT) == [
        "Human Values are indicated in the premise: whales  are {sep} tasty and the conclusion: "
        "We should ban {whaling} against it."
    ]
    assert "supporting it." in load_template("cls").render(Argument("A1", "c", IN_FAVOR, "p"))[0]


def test_joined_is_one_segment_a_field_even_when_a_field_is_empty() -> None:
    assert load_template("joined").render(ARGUMENT) == ["We should ban {whaling}", "against", "whales  are {sep} tasty"]
    assert load_template("joined").render(Argument("A1", "", IN_FAVOR, "p")) == ["", "supporting", "p"]


def test_a_users_file_is_a_template_whatever_its_line_breaks(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("{{sep}} “{premise}”\n{sep} {conclusion}\n", encoding="utf-8")
    assert load_template(str(file)).render(Argument("A1", "c", IN_FAVOR, "ü 😀")) == ["{sep} “ü 😀”", "c"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{premise} {topic}", "unknown slot {topic}; known slots: premise, conclusion, stance, sep"),
        ("{premise} {}", "unknown slot {}"),
        ("{premise.__class__}", "unknown slot {premise.__class__}"),
        ("{premise!r}", "unknown slot {premise!r}"),
        ("{premise:>{sep}}", "unknown slot {premise:>{sep}}"),
        ("{conclusion}", "the slot {premise} is missing"),
        ("{premise", "expected '}' before end of string"),
        ("", "the slot {premise} is missing"),
    ],
)
def test_a_wrong_template_is_named_in_a_sentence(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_template(str(file))
    assert said in str(error.value)
    assert str(file) in str(error.value)


def test_an_unknown_template_lists_the_known_ones(tmp_path: Path) -> None:
    for name in ("clss", str(tmp_path)):
        with pytest.raises(ConfigError, match=r"known: cls, joined"):
            load_template(name)
