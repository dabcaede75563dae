"""Templates: the study's own words, slots, and what a user's file can get wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument
from jaxvalues.data.task import STANCE
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import ConfigError
from jaxvalues.templates.template import load_template

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
    ("text", "rendered"),
    [
        ("{premise}", ["p"]),
        ("\r\n{premise}\r\n{conclusion}\r\n", ["p c"]),
        ("{premise}{sep}{sep}{conclusion}", ["p", "", "c"]),  # RoBERTa's double separator
        ("{{{sep}}}{premise}", ["{", "}p"]),
        ("{{{premise}}} {{{{}}}} {{sep}}", ["{p} {{}} {sep}"]),
        ("{premise} {premise}", ["p p"]),
    ],
)
def test_slots_and_braces_of_a_users_file(text: str, rendered: list[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_bytes(text.encode())
    template = load_template(str(file))
    assert template.render(Argument("A1", "c", IN_FAVOR, "p")) == rendered
    file.write_text(template.text, encoding="utf-8")
    assert load_template(str(file)) == template


def test_descriptions_are_one_more_segment_and_part_of_the_text(tmp_path: Path) -> None:
    template = load_template("joined", "name")
    assert template.render(ARGUMENT)[:3] == load_template("joined").render(ARGUMENT)
    assert template.render(ARGUMENT)[3].split("; ") == list(CATEGORIES)
    rows = "".join(f"{name}\tis {{{name}}} {{sep}}.\n" for name in CATEGORIES)
    (tmp_path / "mine.tsv").write_text(f"Category\tDescription\n{rows}", encoding="utf-8")
    for descriptions in ("definition", str(tmp_path / "mine.tsv")):
        template = load_template("cls", descriptions)
        (tmp_path / "copy.txt").write_text(template.text, encoding="utf-8")
        assert load_template(str(tmp_path / "copy.txt")).render(ARGUMENT) == template.render(ARGUMENT)
    assert template.render(ARGUMENT)[1].startswith("is {Self-direction: thought} {sep}; is {")


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
        ("premise}", "Single '}' encountered"),
        ("", "the slot {premise} is missing"),
        (" \r\n ", "the slot {premise} is missing"),
        ("{{premise}}", "the slot {premise} is missing"),
        ("{", "Single '{' encountered"),
        ("{0} {premise}", "unknown slot {0}"),
        ("{ premise }", "unknown slot { premise }"),
        ("{Premise}", "unknown slot {Premise}"),
        ("{premise[0]}", "unknown slot {premise[0]}"),
        ("{sep} {premise}", "{sep} must stand between two texts"),
        ("{premise}{sep}", "{sep} must stand between two texts"),
        ("\ufeff{premise}", "line 1: the file starts with a byte order mark"),
        ("a\n{premise}\0", "line 2: the line contains a NUL byte"),
    ],
)
def test_a_wrong_template_is_named_in_a_sentence(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_template(str(file))
    assert said in str(error.value)
    assert str(file) in str(error.value)


def test_a_template_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(b"{premise}\nd\xe9j\xe0")
    with pytest.raises(ConfigError, match=r"mine\.txt, line 2: the byte 0xe9 is not UTF-8"):
        load_template(str(tmp_path / "mine.txt"))


def test_an_unknown_template_lists_the_known_ones(tmp_path: Path) -> None:
    for name in ("clss", str(tmp_path)):
        with pytest.raises(ConfigError, match=r"is neither one of cls, joined"):
            load_template(name)


def test_a_template_of_the_stance_does_not_show_it() -> None:
    (text,) = load_template("stance", task=STANCE).render(ARGUMENT)
    assert text == "Given the premise: whales  are {sep} tasty and the conclusion: We should ban {whaling}."
    for name in ("cls", "joined"):
        with pytest.raises(ConfigError, match=rf"template {name}: the slot {{stance}} contains the answer"):
            load_template(name, task=STANCE)
