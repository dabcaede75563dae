"""Shortening: what goes first, where a text may end, and at what cost."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from jaxvalues.data.arguments import IN_FAVOR, Argument
from jaxvalues.templates.truncation import LONGEST_WORD, Truncations, possible_ends, truncated_rows

FAMILY, FLAGS = "👩‍👩‍👧‍👦", "🇩🇪🇫🇷"


def argument(conclusion: str, premise: str) -> Argument:
    return Argument("A1", conclusion, IN_FAVOR, premise)


def letters(arguments: Sequence[Argument]) -> list[list[int]]:
    """A row as a tokenizer of single characters would make it, between two tokens that frame it."""
    return [[0, *map(ord, f"{one.conclusion}|{one.premise}"), 0] for one in arguments]


def spell(row: list[int]) -> str:
    return "".join(map(chr, row[1:-1]))


def pieces(text: str) -> list[str]:
    return [text[start:end] for start, end in itertools.pairwise(possible_ends(text))]


def test_every_degree_comes_once_and_the_premise_goes_first() -> None:
    steps = Truncations(argument(" ban it ", "it hurts  us"))
    truncated = [(steps[i].conclusion, steps[i].premise) for i in range(len(steps))]
    assert truncated == [
        ("", ""),
        (" ban", ""),
        (" ban it ", ""),
        (" ban it ", "it"),
        (" ban it ", "it hurts"),
        (" ban it ", "it hurts  us"),
    ]
    assert {steps[i].stance for i in range(len(steps))} == {IN_FAVOR}
    assert len(Truncations(argument("", " "))) == 1


@pytest.mark.parametrize(
    ("max_length", "expected"),
    [(17, "ban it|it hurts"), (16, "ban it|it"), (10, "ban it|"), (9, "ban it|"), (8, "ban|"), (3, "|"), (2, "|")],
)
def test_a_row_keeps_the_words_that_fit(max_length: int, expected: str) -> None:
    (row,) = truncated_rows([argument("ban it", "it hurts us")], letters, max_length)
    assert spell(row) == expected


def test_rows_are_shortened_apart_from_each_other() -> None:
    arguments = [argument("c" * (i % 7), "word " * i) for i in range(60)]
    together = truncated_rows(arguments, letters, 40)
    assert together == [row for one in arguments for row in truncated_rows([one], letters, 40)]
    assert {spell(row).count("word") for row in together} >= {0, 1, 6, 7}
    assert truncated_rows([], letters, 40) == []


def test_words_end_where_they_end() -> None:
    assert pieces("  naïve 🐋\t“so”, ok\n") == ["  naïve", " 🐋", "\t“so”,", " ok"]
    word = "e\u0301" * (LONGEST_WORD // 2)
    assert pieces(word) == [word]
    assert possible_ends("") == possible_ends(" \n") == [0]


@pytest.mark.parametrize(
    "character",
    [
        "x",
        "字",
        "e\u0301\u0323",
        "👍🏽",
        FAMILY,
        "❤️",
        "🇩🇪",
        "नि",
        "한",
        "ᄒ" + "ᅡ" + "ᆫ",
        "🏴\U000e0067\U000e0062\U000e007f",
    ],
)
def test_what_is_no_word_ends_between_characters_as_readers_see_them(character: str) -> None:
    text = character * (LONGEST_WORD + 1)
    assert pieces(text) == [character] * (LONGEST_WORD + 1)
    assert pieces(f"a {text} b")[1:-1] == [" " + character, *[character] * LONGEST_WORD]


def test_no_cut_falls_inside_a_character_of_a_mixed_text() -> None:
    random_ = random.Random(0)
    characters = ["x", "字", "e\u0301", "👍🏽", FAMILY, "❤️", FLAGS[:2], "مَ"]
    for _ in range(50):
        chosen = random_.choices(characters, k=80)
        borders = {sum(map(len, chosen[:i])) for i in range(81)}
        ends = possible_ends("".join(chosen))
        assert set(ends) <= borders
        assert len(ends) > 40


def test_the_work_grows_with_the_text_and_not_with_its_square() -> None:
    encoded: list[int] = []

    def counting(arguments: Sequence[Argument]) -> list[list[int]]:
        rows = letters(arguments)
        encoded.append(sum(map(len, rows)))
        return rows

    for premise in ("word " * 10_000, "字" * 50_000):
        encoded.clear()
        (row,) = truncated_rows([argument("we should", premise)], counting, 64)
        assert 59 < len(row) <= 64
        assert sum(encoded) < 1.1 * len(premise)
        assert len(encoded) < 20
