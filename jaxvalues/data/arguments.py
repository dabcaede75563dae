"""Arguments and splits: what every other room reads, wherever the data comes from.

Terms of the task: an argument is a conclusion, a stance towards it, and a premise. Its labels are one row of 0/1 over
the C = 20 categories of `taxonomy.CATEGORIES`.
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

_SURROGATE = re.compile("[\ud800-\udfff]")  # Python strings can hold them, UTF-8 and tokenizers cannot


@dataclass(frozen=True)
class Argument:
    """One argument as published: the texts are never trimmed, re-cased or unquoted."""

    id: str
    conclusion: str
    stance: str  # one of STANCES
    premise: str

    @property
    def source(self) -> str:
        """The letter of the corpus it comes from (`taxonomy.SOURCES`)."""
        return self.id[:1]

    def faults(self) -> Iterator[str]:
        """What keeps a model from reading it, a sentence each; an empty text does not."""
        if self.stance not in STANCES:
            yield f"the stance of {self.id} is {self.stance!r}, expected {' or '.join(map(repr, STANCES))}"
        for name, text in (("conclusion", self.conclusion), ("premise", self.premise)):
            if not isinstance(text, str):  # such as the nan of an empty cell
                yield f"the {name} of {self.id} is {text!r}, expected text"
            elif half := _SURROGATE.search(text):
                yield f"the {name} of {self.id} holds {half[0]!a}, half of a character"


@dataclass(frozen=True, eq=False)
class Split:
    """The n arguments of one split in file order, with their labels as far as they are known.

    labels [n, C] int8 (of the 20 categories, or of another `jaxvalues.data.task`) and level1 [n, 54] int8 (values) are
    None when the split comes without them.
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
        """The rows at `indices`, in that order, under the same name (few-shot subsets, folds, held-out rows)."""
        rows = np.fromiter(indices, dtype=np.int64)
        return Split(
            self.name,
            tuple(self.arguments[i] for i in rows),
            None if self.labels is None else self.labels[rows],
            None if self.level1 is None else self.level1[rows],
        )
