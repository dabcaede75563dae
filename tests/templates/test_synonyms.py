"""Synonyms: jaxvalues' own keep their rules, a user's file is checked, and answers say what they say."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import ConfigError
from jaxvalues.templates.questions import load_question_template
from jaxvalues.templates.synonyms import SynonymMatcher, load_synonyms, stems_of

OWN = load_synonyms()
ROWS = [f"{name}\tword{i}" for i, name in enumerate(CATEGORIES)]
LAST = CATEGORIES[19]


def write(folder: Path, *rows: str) -> Path:
    file = folder / "mine.tsv"
    file.write_text("".join(f"{row}\n" for row in ("Category\tSynonyms", *rows)), encoding="utf-8")
    return file


def said(answer: str, synonyms: dict[str, tuple[str, ...]] = OWN) -> list[str]:
    return [name for name, found in zip(synonyms, SynonymMatcher(synonyms).match(answer), strict=True) if found]


def test_every_category_has_enough_words_and_shares_none_by_stem() -> None:
    assert tuple(OWN) == CATEGORIES
    assert min(map(len, OWN.values())) >= 8
    categories = defaultdict(set)
    for name, phrases in OWN.items():
        for phrase in phrases:
            for stem in stems_of(phrase):
                categories[stem].add(name)
    assert not {stem: names for stem, names in categories.items() if len(names) > 1}


def test_no_synonym_begins_another_of_its_category_even_inside_a_word() -> None:
    for phrases in OWN.values():
        assert not [(a, b) for a in phrases for b in phrases if a is not b and b.startswith(a)]


def test_an_answer_that_only_repeats_the_question_says_nothing() -> None:
    template = load_question_template("open_answer")
    for category, name in enumerate(CATEGORIES):
        for stance in (IN_FAVOR, AGAINST):
            (question,) = template.question(category, Argument("A1", "", stance, ""))
            assert name in question
            assert said(question) == []
    own = {stem for phrases in OWN.values() for phrase in phrases for stem in stems_of(phrase)}
    assert own.isdisjoint(stems_of(" ".join(CATEGORIES)))


def test_each_synonym_says_its_category_alone() -> None:
    matcher = SynonymMatcher(OWN)
    for category, phrases in enumerate(OWN.values()):
        for phrase in phrases:
            found = matcher.match(f"I am “{phrase.upper()}”, you know.")
            assert (found.dtype, found.shape) == (np.bool_, (20,))
            assert np.flatnonzero(found).tolist() == [category]


@pytest.mark.parametrize(
    ("answer", "categories"),
    [
        ("", []),
        ("???", []),
        ("CREATIVITY, and courageously so", ["Self-direction: thought", "Achievement"]),
        ("procreative encouragement", []),  # whole words
        ("old fashioned", ["Tradition"]),
        ("an old-fashioned\nperson", ["Tradition"]),
        ("fashioned of old", []),  # phrases in their order
        ("old and well fashioned", []),  # and in one piece
        ("old, abiding by the law; then law", []),
        ("not creative", ["Self-direction: thought"]),  # negation is not handled
    ],
)
def test_what_an_answer_says(answer: str, categories: list[str]) -> None:
    assert said(answer) == categories


def test_one_word_may_say_two_categories_in_a_mapping_of_ones_own() -> None:
    synonyms = {"a": ("good", "people's friend"), "b": ("good", "bad"), "c": ("worse",)}
    assert said("goods", synonyms) == ["a", "b"]
    assert said("the people’s friends are worse", synonyms) == ["a", "c"]


def test_a_users_file_in_any_order(tmp_path: Path) -> None:
    synonyms = load_synonyms(write(tmp_path, *ROWS[:0:-1], f"{CATEGORIES[0]}\t free  thinker ,Thoughtful"))
    assert tuple(synonyms) == CATEGORIES
    assert synonyms[CATEGORIES[0]] == ("free thinker", "Thoughtful")
    assert synonyms[CATEGORIES[7]] == ("word7",)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (ROWS[1:], "there is no synonym list of Self-direction: thought, expected one for each category"),
        ([*ROWS, ROWS[0]], "line 22: the Category Self-direction: thought is already in line 2"),
        (["Fame\tx", *ROWS], "line 2: there is no category `Fame`; did you mean `Face`?"),
        ([*ROWS[:19], f"{LAST}\t "], "line 21: the synonym list of Universalism: objectivity is empty"),
        (
            [*ROWS[:19], f"{LAST}\ta, ,b"],
            "line 21: the synonym '' of Universalism: objectivity contains no word",
        ),
        (
            [*ROWS[:19], f"{LAST}\ta, -"],
            "line 21: the synonym '-' of Universalism: objectivity contains no word",
        ),
        (
            [*ROWS[:19], f"{LAST}\thelp, Helpful"],
            "line 21: the synonyms `help` and `Helpful` of Universalism: objectivity have the same stem",
        ),
        (
            [*ROWS[:19], f"{LAST}\tWord3s"],
            "line 21: the synonym `Word3s` of Universalism: objectivity is already in line 5, as `word3`",
        ),
        (
            [*ROWS[:19], f"{LAST}\tfree thinker, free"],
            "line 21: the synonyms `free thinker` and `free` of Universalism: objectivity begin with the same words",
        ),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_line(rows: list[str], said: str, tmp_path: Path) -> None:
    file = write(tmp_path, *rows)
    with pytest.raises(ConfigError) as error:
        load_synonyms(file)
    assert str(error.value).startswith(f"formulation.synonyms: {file}")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.tsv: no such file"):
        load_synonyms(tmp_path / "mine.tsv")
