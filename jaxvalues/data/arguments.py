"""Arguments and splits: what every other room reads, wherever the data comes from.

Terms of the task: an argument is a conclusion, a stance towards it, and a premise. Its labels are one row of 0/1 over
the C = 20 categories of `taxonomy.CATEGORIES`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

import numpy as np

from jaxvalues.errors import UserError

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


def load_split(
    name: str, *, source: Literal["touche23", "sample"] = "touche23", dir: str | Path | None = None
) -> Split:
    """One split of the data, checked.

    name: one of SPLITS. dir: a folder of TSV files in the published format; it wins over `source`. Without it,
    "sample" reads the small data set that comes with the package and "touche23" the published one through
    tensorflow_datasets, which downloads it on first use.
    Raises UserError for an unknown or missing split and for files that are not as they must be.
    """
    from jaxvalues.data.folder import read_split

    if name not in SPLITS:
        raise UserError(f"there is no split {name!r}: it is one of {', '.join(SPLITS)}")
    if dir is not None:
        return read_split(dir, name)
    if source == "sample":
        with sample_folder() as folder:
            return read_split(folder, name)
    if source == "touche23":
        return _load_prepared(name)
    raise UserError(f"there is no data source {source!r}: it is touche23 or sample")


def sample_folder() -> AbstractContextManager[Path]:
    """The folder of the small data set that comes with the package."""
    return as_file(files("jaxvalues.data") / "sample")


def _load_prepared(name: str) -> Split:
    try:
        from jaxvalues.data.touche23_value_eval import prepared
    except ImportError as error:
        raise UserError(
            f"reading the published data needs the package {error.name}, which is not installed: install it, or give "
            "data.dir, a folder with the files"
        ) from error
    return prepared.load(name)
