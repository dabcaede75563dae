"""Truncates arguments that are too long for a model, by as few words as possible.

Words are removed from the end of the premise. The conclusion is truncated only when no word of the premise is left. The
rest of the template stays.

The code below the imports is also shown on the model cards of exported runs, so it needs nothing but the standard
library and an `Argument`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace

from jaxvalues.data.arguments import Argument

LONGEST_WORD = 40
"""In characters. Longer runs without a space may be truncated inside: scripts without spaces, addresses, noise."""

_WORD = re.compile(r"\S+")
_CHARACTER = re.compile("[\U0001f1e6-\U0001f1ff]{2}|.", re.DOTALL)  # two regional indicators are one flag

Encode = Callable[[Sequence[Argument]], list[list[int]]]


def truncated_rows(arguments: Sequence[Argument], encode: Encode, max_length: int) -> list[list[int]]:
    """The token rows of arguments, each truncated to as many words as fit in `max_length` tokens.

    `encode` returns the rows of whole arguments, so each row is the encoding of a text. A row that is too long even
    without any word of the argument is returned as it is. The number of words is found by bisection, for all rows at
    once: a row of n words is encoded log2(n) times.
    """
    steps = [Truncations(argument) for argument in arguments]
    rows = encode([step[0] for step in steps])
    fits, too_long = [0] * len(steps), [len(step) for step in steps]
    while undecided := [i for i in range(len(steps)) if too_long[i] - fits[i] > 1]:
        middles = [(fits[i] + too_long[i]) // 2 for i in undecided]
        tried = encode([steps[i][middle] for i, middle in zip(undecided, middles, strict=True)])
        for i, middle, row in zip(undecided, middles, tried, strict=True):
            if len(row) <= max_length:
                fits[i], rows[i] = middle, row
            else:
                too_long[i] = middle
    return rows


class Truncations:
    """All truncations of an argument, from the shortest to the whole: first the conclusion grows, then the premise."""

    def __init__(self, argument: Argument) -> None:
        self.argument = argument
        self.conclusions, self.premises = possible_ends(argument.conclusion), possible_ends(argument.premise)

    def __len__(self) -> int:
        return len(self.conclusions) + len(self.premises) - 1

    def __getitem__(self, step: int) -> Argument:
        beyond = step - len(self.conclusions) + 1
        if beyond < 0:
            return replace(self.argument, conclusion=self.argument.conclusion[: self.conclusions[step]], premise="")
        return replace(self.argument, premise=self.argument.premise[: self.premises[beyond]])


def possible_ends(text: str) -> list[int]:
    """The indices at which a text may be truncated, increasing: 0 and the end of every word.

    A run of more than LONGEST_WORD characters may also be truncated between any two user-perceived characters, but
    not between a letter and its accents or inside an emoji (approximately the extended grapheme clusters of Unicode
    Standard Annex 29).
    """
    ends = [0]
    for word in _WORD.finditer(text):
        start, end = word.span()
        if end - start > LONGEST_WORD:
            ends += _between_characters(text, start, end)
        ends.append(end)
    return ends


def _between_characters(text: str, start: int, end: int) -> list[int]:
    _, *starts = (match.start() for match in _CHARACTER.finditer(text, start, end))
    return [index for index in starts if not _continues(text[index]) and text[index - 1] != "\u200d"]


def _continues(character: str) -> bool:
    """Whether a character combines with the one before it."""
    return (
        unicodedata.category(character).startswith("M")  # accents, vowel signs, variation selectors
        or character in "\u200c\u200d"  # zero-width joiners
        or "\u1160" <= character <= "\u11ff"  # vowels and finals of a Korean syllable
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= character <= "\U000e007f"  # tags, which spell flags of regions
    )
