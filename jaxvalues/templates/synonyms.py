"""Synonyms: the words by which an open answer says that someone holds a value, and a matcher that finds them.

A table like the data's, with the header `Category`, `Synonyms`: a row for each category, its synonyms separated by
commas, words or short phrases. Those of jaxvalues answer the study's question "what kind of person am I?" (`creative`,
`curious`, ...). No word, by stem, is in two categories, and none is of a category's name or of the template
`open_answer`: an answer that only repeats the question must not count as one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import NoReturn

import numpy as np
import snowballstemmer

from jaxvalues.errors import ConfigError
from jaxvalues.templates.descriptions import rows_of_categories, table_rows

HEADER = ("Category", "Synonyms")

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")  # letters and digits, with apostrophes inside; a hyphen parts two words
_STEMMER = snowballstemmer.stemmer("english")

Stems = tuple[str, ...]


def load_synonyms(path: str | Path | None = None) -> dict[str, tuple[str, ...]]:
    """The synonyms of each category, in the order of CATEGORIES: those of jaxvalues, or of a user's file.

    Raises ConfigError, with file and line, for a file that has not exactly one row with at least one synonym for each
    category, for a synonym without words, for one that comes twice (by stems, anywhere in the file), and for one whose
    words begin another of its category: whoever says the longer one has said both, and their probabilities add up.
    """
    if path is None:
        with as_file(files("jaxvalues.templates") / "synonyms.tsv") as own:
            return load_synonyms(own)
    if not Path(path).is_file():
        _refuse(f"there is no file {path}; leave the key out for the synonyms that come with jaxvalues")
    rows = rows_of_categories(path, table_rows(path, HEADER, _refuse), "synonym list", _refuse)
    synonyms, seen = {}, {}
    for name, (line, text) in rows.items():
        synonyms[name] = tuple(" ".join(synonym.split()) for synonym in text.split(","))
        _check(f"{path}, line {line}", name, synonyms[name], seen)
        seen |= {stems_of(synonym): (synonym, line) for synonym in synonyms[name]}
    return synonyms


def synonyms_text(synonyms: Mapping[str, Sequence[str]]) -> str:
    """The text of a file that `load_synonyms` reads as these."""
    rows = (HEADER, *((name, ", ".join(words)) for name, words in synonyms.items()))
    return "\n".join(map("\t".join, rows))


def stems_of(text: str) -> Stems:
    """The stems of a text's words, in turn: Porter's English stemmer (Snowball), case-folded."""
    return tuple(_STEMMER.stemWords(_WORD.findall(text.casefold().replace("\u2019", "'"))))


class SynonymMatcher:
    """Finds the categories of which an answer holds a synonym.

    Words are compared whole and by stem, phrases as sequences of words: `creativity` says `creative`, but `procreative`
    does not, nor `ambition` `ambitious`, which have two stems. Negation is not handled: `not creative` says `creative`.
    """

    def __init__(self, synonyms: Mapping[str, Sequence[str]]) -> None:
        self._num_categories = len(synonyms)
        self._categories: dict[Stems, list[int]] = {}
        for category, phrases in enumerate(synonyms.values()):
            for stems in map(stems_of, phrases):
                self._categories.setdefault(stems, []).append(category)
        self._lengths = sorted({len(stems) for stems in self._categories})

    def match(self, answer: str) -> np.ndarray:
        """Whether a synonym of each category stands in the answer: [C] bool, in the order of the synonyms' mapping.

        `answer` is what a model says and nothing else. The question must not be in it, for it may hold such words too.
        """
        stems, found = stems_of(answer), np.zeros(self._num_categories, bool)
        for length in self._lengths:
            for start in range(len(stems) - length + 1):
                found[self._categories.get(stems[start : start + length], [])] = True
        return found


def _check(where: str, name: str, synonyms: Sequence[str], seen: Mapping[Stems, tuple[str, int]]) -> None:
    """Refuse the synonyms of a category, of which `seen` are those of others, each with its line."""
    own: dict[Stems, str] = {}
    for synonym in synonyms:
        stems = stems_of(synonym)
        if not stems:
            _refuse(f"{where}: the synonym {synonym!r} of {name} holds no word")
        if stems in seen:
            other, line = seen[stems]
            _refuse(f"{where}: the synonym `{synonym}` of {name} stands in line {line} already, as `{other}`")
        for other_stems, other in own.items():
            shorter = min(len(stems), len(other_stems))
            if stems == other_stems:
                _refuse(f"{where}: the synonyms `{other}` and `{synonym}` of {name} are the same word")
            if stems[:shorter] == other_stems[:shorter]:
                _refuse(f"{where}: of the synonyms `{other}` and `{synonym}` of {name}, one begins the other")
        own[stems] = synonym


def _refuse(problem: str) -> NoReturn:
    raise ConfigError(f"formulation.synonyms: {problem}")
