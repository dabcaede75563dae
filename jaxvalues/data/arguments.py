"""Arguments and splits: the in-memory form of the data that all other packages use.

An argument is a conclusion, a stance towards it, and a premise. Its labels are one row of 0/1 over the C = 20
categories of `taxonomy.CATEGORIES`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

SPLITS: tuple[str, ...] = (
    "training",
    "validation",
    "test",
    "validation-zhihu",
    "test-nahjalbalagha",
    "test-nyt",
)
IN_FAVOR, AGAINST = "in favor of", "against"
STANCES: tuple[str, ...] = (IN_FAVOR, AGAINST)

_SURROGATE = re.compile("[\ud800-\udfff]")  # valid in Python strings, invalid in UTF-8 and for tokenizers


@dataclass(frozen=True)
class Argument:
    """One argument of the data set. Its texts are exactly as published: not trimmed, re-cased or unquoted."""

    id: str
    conclusion: str
    stance: str  # one of STANCES
    premise: str

    @property
    def source(self) -> str:
        """The first letter of the ID, which names the corpus (`taxonomy.SOURCES`)."""
        return self.id[:1]

    def problems(self) -> Iterator[str]:
        """One sentence for each reason why a model cannot read the argument. An empty text is not a reason."""
        if self.stance not in STANCES:
            yield f"the stance of {self.id} is {self.stance!r}, expected {' or '.join(map(repr, STANCES))}"
        for name, text in (("conclusion", self.conclusion), ("premise", self.premise)):
            if not isinstance(text, str):  # for example the nan of an empty cell
                yield f"the {name} of {self.id} is {text!r}, expected text"
            elif half := _SURROGATE.search(text):
                yield f"the {name} of {self.id} contains the unpaired surrogate {half[0]!a}, expected valid Unicode"


@dataclass(frozen=True, eq=False)
class Split:
    """The n arguments of one split, in file order, with their labels.

    `labels` [n, C] int8 are those of the 20 categories, or of another task (`jaxvalues.data.task`). `level1` [n, 54]
    int8 are those of the values. Each is None when the split has none.
    """

    name: str
    arguments: tuple[Argument, ...]
    labels: np.ndarray | None = None
    level1: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.arguments)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(argument.id for argument in self.arguments)

    def subset(self, indices: Iterable[int]) -> Split:
        """The rows at `indices`, in that order, under the same name."""
        rows = np.fromiter(indices, dtype=np.int64)
        return Split(
            self.name,
            tuple(self.arguments[i] for i in rows),
            None if self.labels is None else self.labels[rows],
            None if self.level1 is None else self.level1[rows],
        )
