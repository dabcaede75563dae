"""Synonyms: words in an open answer that indicate a category, and a matcher that finds them.

A synonym file is a table in the format of `jaxvalues.data.tsv` with the header `Category`, `Synonyms` and a row for
each category. Its synonyms are words or short phrases, separated by commas. The built-in synonyms answer the study's
question "what kind of person am I?" (`creative`, `curious`, ...). No stem of a built-in synonym occurs in two
categories, in a category's name or in the template `open_answer`, so an answer that only repeats the question matches
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import NoReturn

import numpy as np
import snowballstemmer

from jaxvalues.config.reading import user_path
from jaxvalues.errors import ConfigError
from jaxvalues.templates.descriptions import rows_by_category, table_rows

HEADER = ("Category", "Synonyms")

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")  # letters and digits, with apostrophes inside; a hyphen separates words
_STEMMER = snowballstemmer.stemmer("english")

Stems = tuple[str, ...]


def load_synonyms(path: str | Path | None = None) -> dict[str, tuple[str, ...]]:
    """{category: synonyms} in the order of CATEGORIES, from a user's file. None: the built-in synonyms.

    Raises ConfigError, with file and line, for a file without exactly one row for each category, for a synonym without
    words, for two synonyms with the same stems, and for a synonym that is a prefix of another one of its category. (The
    probabilities of synonyms add up, so no answer may begin with two of them.)
    """
    if path is None:
        with as_file(files("jaxvalues.templates") / "synonyms.tsv") as own:
            return load_synonyms(own)
    path = user_path(path)
    if not path.is_file():
        _refuse(f"{path}: no such file; remove the key to use the built-in synonyms")
    rows = rows_by_category(path, table_rows(path, HEADER, _refuse), "synonym list", _refuse)
    synonyms, seen = {}, {}
    for name, (line, text) in rows.items():
        synonyms[name] = tuple(" ".join(synonym.split()) for synonym in text.split(","))
        _check(f"{path}, line {line}", name, synonyms[name], seen)
        seen |= {stems_of(synonym): (synonym, line) for synonym in synonyms[name]}
    return synonyms


def synonyms_text(synonyms: Mapping[str, Sequence[str]]) -> str:
    """The text of a file from which `load_synonyms` reads these synonyms."""
    rows = (HEADER, *((name, ", ".join(words)) for name, words in synonyms.items()))
    return "\n".join(map("\t".join, rows))


def stems_of(text: str) -> Stems:
    """The stems of a text's words, in order, case-folded: Porter's English stemmer (Snowball)."""
    return tuple(_STEMMER.stemWords(_WORD.findall(text.casefold().replace("\u2019", "'"))))


class SynonymMatcher:
    """Finds the categories of which a text contains a synonym.

    Whole words are compared by their stems, phrases as sequences of words. So `creativity` matches `creative`, but
    `procreative` does not, and `ambition` does not match `ambitious`, because their stems differ. Negation is not
    handled: `not creative` matches `creative`.
    """

    def __init__(self, synonyms: Mapping[str, Sequence[str]]) -> None:
        self._num_categories = len(synonyms)
        self._categories: dict[Stems, list[int]] = {}
        for category, phrases in enumerate(synonyms.values()):
            for stems in map(stems_of, phrases):
                self._categories.setdefault(stems, []).append(category)
        self._lengths = sorted({len(stems) for stems in self._categories})

    def match(self, answer: str) -> np.ndarray:
        """Whether the answer contains a synonym of each category: [C] bool, in the order of the synonyms' mapping.

        `answer` is the generated text alone. It must not include the question, which may contain synonyms.
        """
        stems, found = stems_of(answer), np.zeros(self._num_categories, bool)
        for length in self._lengths:
            for start in range(len(stems) - length + 1):
                found[self._categories.get(stems[start : start + length], [])] = True
        return found


def _check(where: str, name: str, synonyms: Sequence[str], seen: Mapping[Stems, tuple[str, int]]) -> None:
    """Raises ConfigError for wrong synonyms of the category `name`.

    `seen` is {stems: (synonym, line)} of the categories before it.
    """
    own: dict[Stems, str] = {}
    for synonym in synonyms:
        stems = stems_of(synonym)
        if not stems:
            _refuse(f"{where}: the synonym {synonym!r} of {name} contains no word")
        if stems in seen:
            other, line = seen[stems]
            _refuse(f"{where}: the synonym `{synonym}` of {name} is already in line {line}, as `{other}`")
        for other_stems, other in own.items():
            shorter = min(len(stems), len(other_stems))
            if stems == other_stems:
                _refuse(f"{where}: the synonyms `{other}` and `{synonym}` of {name} have the same stem")
            if stems[:shorter] == other_stems[:shorter]:
                _refuse(f"{where}: the synonyms `{other}` and `{synonym}` of {name} begin with the same words")
        own[stems] = synonym


def _refuse(problem: str) -> NoReturn:
    raise ConfigError(f"formulation.synonyms: {problem}")
