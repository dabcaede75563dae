"""A system's predictions on a split, and the three files that store them.

- `predictions-<split>.tsv` is in the official run format: `Argument ID` and the 20 categories, each 0 or 1. For another
  task (`jaxvalues.data.task`) it has that task's labels instead.
- `logits-<split>.tsv` is the same table with logits. With `thresholds.json` (`evaluation/decision.py`) in the same
  folder it determines the first file exactly.
- `probabilities-<split>.tsv` is the same table with probabilities. Very large logits all have the probability 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import logit

from jaxvalues.data.numbers import parse_number
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.tsv import ID, read_table, write_table
from jaxvalues.errors import UserError

_LARGEST = float(np.finfo(np.float32).max)
_FINITE = (-104.0, 17.0)  # the logits of the smallest float32 probability and of the largest below 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """A system's probabilities for the arguments `ids`: [n, C] float32 in [0, 1], one column for each of `labels`.

    Raises UserError for any other shape and for values outside [0, 1] or NaN.
    """

    ids: tuple[str, ...]
    probabilities: np.ndarray
    labels: tuple[str, ...] = CATEGORIES

    def __post_init__(self) -> None:
        probabilities = np.asarray(self.probabilities, np.float32)
        if probabilities.shape != (len(self.ids), len(self.labels)):
            expected = [len(self.ids), len(self.labels)]
            raise UserError(f"the probabilities have the shape {list(probabilities.shape)}, but {expected} is expected")
        outside = ~((probabilities >= 0) & (probabilities <= 1))  # true for NaN too
        if outside.any():
            row, column = np.argwhere(outside)[0]
            raise UserError(
                f"the probability of {self.labels[column]} for argument {self.ids[row]} is "
                f"{probabilities[row, column]}, but a number between 0 and 1 is expected"
            )
        object.__setattr__(self, "probabilities", probabilities)

    @property
    def decided(self) -> bool:
        """Whether all values are 0 or 1, as in a file in the official run format."""
        return bool(np.isin(self.probabilities, (0, 1)).all())

    def write_probabilities(self, path: str | Path) -> None:
        """Writes the probabilities so that `read_predictions` returns the same float32 numbers."""
        # Nine significant digits identify every float32.
        rows = self.probabilities.tolist()
        write_table(
            path, self._header, [(i, *(f"{p:.9g}" for p in row)) for i, row in zip(self.ids, rows, strict=True)]
        )

    def write_run(self, path: str | Path, decisions: np.ndarray) -> None:
        """Writes decisions [n, C] of 0 and 1 about the same arguments in the official run format."""
        if decisions.shape != self.probabilities.shape or not np.isin(decisions, (0, 1)).all():
            shape = list(self.probabilities.shape)
            raise UserError(f"{path}: the decisions must be 0 or 1 in an array of the shape {shape}")
        rows = decisions.astype(int).tolist()
        write_table(path, self._header, [(i, *row) for i, row in zip(self.ids, rows, strict=True)])

    @property
    def _header(self) -> tuple[str, ...]:
        return (ID, *self.labels)


def read_predictions(path: str | Path, labels: tuple[str, ...] = CATEGORIES) -> Predictions:
    """Reads a probabilities file, or a run in the official format as probabilities 0 and 1.

    Raises UserError, with file and line, for another header, for a repeated ID and for a cell that is not a number
    between 0 and 1.
    """
    ids, rows = read_table(path, (ID, *labels))
    probabilities = [
        [_number(cell, f"{path}, line {line}: {name}", 0, 1) for cell, name in zip(row, labels, strict=True)]
        for line, row in enumerate(rows, start=2)
    ]
    return Predictions(ids, np.array(probabilities, np.float32).reshape(-1, len(labels)), labels)


class Logits(NamedTuple):
    """A system's logits [n, C] float32 for the arguments `ids`."""

    ids: tuple[str, ...]
    values: np.ndarray


def write_logits(path: str | Path, logits: Logits, labels: tuple[str, ...] = CATEGORIES) -> None:
    """Writes logits so that `read_logits` returns the same float32 numbers. Raises UserError for one not finite."""
    values = np.asarray(logits.values, np.float32)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise UserError(
            f"the logit of {labels[column]} for argument {logits.ids[row]} is {values[row, column]}, but a finite "
            "number is expected"
        )
    cells = ([f"{value:.9g}" for value in row] for row in values.tolist())
    write_table(path, (ID, *labels), [(i, *row) for i, row in zip(logits.ids, cells, strict=True)])


def read_logits(path: str | Path, labels: tuple[str, ...] = CATEGORIES) -> Logits:
    """Reads a file of `write_logits`, or a probabilities file of an earlier version in its place.

    Earlier versions wrote no logits: those of `probabilities-<split>.tsv` in the same folder are taken then. Raises
    UserError, with file and line, for another header, for a repeated ID and for a cell that is not a finite number.
    """
    path = Path(path)
    before = path.with_name(path.name.replace("logits-", "probabilities-", 1))
    if not path.is_file() and before.is_file():
        read = read_predictions(before, labels)
        return Logits(read.ids, np.clip(logit(read.probabilities.astype(np.float64)), *_FINITE).astype(np.float32))
    ids, rows = read_table(path, (ID, *labels))
    values = [
        [_number(cell, f"{path}, line {line}: {name}") for cell, name in zip(row, labels, strict=True)]
        for line, row in enumerate(rows, start=2)
    ]
    return Logits(ids, np.array(values, np.float32).reshape(-1, len(labels)))


def _number(cell: str, where: str, low: float = -_LARGEST, high: float = _LARGEST) -> float:
    value = parse_number(cell)
    if value is None or not low <= value <= high:
        expected = "finite number" if high == _LARGEST else f"number between {low} and {high}"
        raise UserError(f"{where} is {cell!r}, but a {expected} is expected")
    return value
