"""Descriptions: jaxvalues' own, a user's file, and what such a file can get wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxvalues.data.taxonomy import CATEGORIES, TAXONOMY, VALUES
from jaxvalues.errors import ConfigError
from jaxvalues.templates.descriptions import load_descriptions

HEADER = "Category\tDescription\n"
ROWS = [f"{name}\twhat {name} means" for name in CATEGORIES]


def write(folder: Path, *rows: str, header: str = HEADER) -> Path:
    file = folder / "mine.tsv"
    file.write_text(header + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return file


def test_every_source_describes_every_category_in_official_order() -> None:
    for source in ("name", "values", "definition"):
        texts = load_descriptions(source)
        assert tuple(texts) == CATEGORIES
        assert all(text.startswith(name) for name, text in texts.items())
        assert len(set(texts.values())) == 20
    assert load_descriptions("name")["Hedonism"] == "Hedonism"
    assert load_descriptions("values")["Face"] == "Face: have social recognition, have a good reputation"
    assert load_descriptions("definition")["Stimulation"] == (
        "Stimulation: to seek excitement, novelty, change and adventure in life"
    )


def test_values_and_definitions_are_the_taxonomys() -> None:
    named = [value for text in load_descriptions("values").values() for value in text.rsplit(": ", 1)[1].split(", ")]
    assert [value.capitalize() for value in named] == [value.capitalize() for value in VALUES]
    for category in TAXONOMY:
        said = load_descriptions("definition")[category.name].removeprefix(f"{category.name}: ")
        assert category.description == f"It is good {said}."


def test_a_users_file_says_what_it_says_in_any_order(tmp_path: Path) -> None:
    rows = [*reversed(ROWS[1:]), "Self-direction: thought\t {own}  “ideas” 💡.\r"]
    texts = load_descriptions(str(write(tmp_path, *rows)))
    assert tuple(texts) == CATEGORIES
    assert texts["Self-direction: thought"] == "{own} “ideas” 💡."
    assert texts["Face"] == "what Face means"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [*ROWS[:3], "Hedonismus\tfun", *ROWS[4:]],
            "line 5: there is no category `Hedonismus`; did you mean `Hedonism`?",
        ),
        (["hedonism\tfun", *ROWS], "line 2: there is no category `hedonism`; did you mean `Hedonism`?"),
        (
            [*ROWS, "Money\tmore"],
            "`Money`; expected one of Self-direction: thought, Self-direction: action, Stimulation and 17 more",
        ),
        ([*ROWS, ROWS[3]], "line 22: the Category Hedonism is already in line 5"),
        ([*ROWS[:3], *ROWS[5:]], "there is no description of Hedonism, Achievement, expected one for each category"),
        (
            [*ROWS[:19], "Universalism: objectivity\t "],
            "line 21: the description of Universalism: objectivity is empty",
        ),
        ([*ROWS[:19], "Universalism: objectivity"], "line 21: 1 column separated by tabs, expected 2"),
        ([*ROWS[:19], "Universalism: objectivity\ta\tb"], "line 21: 3 columns separated by tabs, expected 2"),
        ([], "the file has no rows below the header"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_line(rows: list[str], said: str, tmp_path: Path) -> None:
    file = write(tmp_path, *rows)
    with pytest.raises(ConfigError) as error:
        load_descriptions(str(file))
    assert str(error.value).startswith(f"formulation.descriptions: {file}")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        ("\n".join(ROWS).encode(), "line 1: column 1 of the header is 'Self-direction: thought', expected 'Category'"),
        (b"\xef\xbb\xbf" + HEADER.encode(), "line 1: the file starts with a byte order mark"),
        ((HEADER + ROWS[0]).encode("utf-16"), "line 1: the byte 0xff is not UTF-8"),
        ((HEADER + ROWS[0] + "\0").encode(), "line 2: the line contains a NUL byte"),
    ],
)
def test_a_file_that_is_no_table(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.tsv").write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_descriptions(str(tmp_path / "mine.tsv"))
    assert said in str(error.value)


def test_an_unknown_source_lists_the_known_ones(tmp_path: Path) -> None:
    for source in ("definitions", str(tmp_path)):
        with pytest.raises(ConfigError, match=r"is neither one of name, values, definition nor a file"):
            load_descriptions(source)
