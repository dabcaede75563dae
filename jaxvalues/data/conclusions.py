"""Which arguments are about the same conclusion: texts are compared without case, punctuation and spacing.

The published training split has 332 different conclusion texts and 318 different conclusions. "We need a better EU
migration policy " and "We need a better EU migration policy." are one. Whatever keeps the arguments of a conclusion
together must group them with `group_by_conclusion`: held-out parts, folds, and statistics that resample conclusions.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from jaxvalues.data.arguments import Argument


def normalize_conclusion(text: str) -> str:
    """The text of a conclusion as it is compared: NFKC, case-folded, single blanks for punctuation, nothing invisible.

    Symbols such as + and $ stay. A text of punctuation alone keeps it.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = " ".join("".join(map(_letter_or_blank, folded)).split())
    return words or " ".join(folded.split())


def group_by_conclusion(arguments: Sequence[Argument]) -> tuple[np.ndarray, np.ndarray]:
    """The number of every argument's conclusion [n], from 0 to G - 1, and the number of arguments of each [G].

    Conclusions are numbered in the order of their first text, sorted. So the numbers depend on the texts alone, and not
    on the order of the arguments.
    """
    texts = sorted({argument.conclusion for argument in arguments})
    numbers: dict[str, int] = {}
    number_of = {text: numbers.setdefault(normalize_conclusion(text), len(numbers)) for text in texts}
    group = np.array([number_of[argument.conclusion] for argument in arguments], np.int64)
    return group, np.bincount(group, minlength=len(numbers))


def _letter_or_blank(character: str) -> str:
    """A blank for punctuation, separators and control characters; nothing for zero-width characters."""
    kind = unicodedata.category(character)
    if kind == "Cf":
        return ""
    return " " if kind == "Cc" or kind[0] in "PZ" else character
