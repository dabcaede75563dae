"""A system's predictions on a split, and the three files that store them.

- `predictions-<split>.tsv` is in the official run format: `Argument ID` and the 20 categories, each 0 or 1. For another
  task (`jaxvalues.data.task`) it has that task's labels instead.
- `probabilities-<split>.tsv` is the same table with probabilities.
- `thresholds.json`, in the same folder, has the threshold of every label and how they were chosen.

The last two files determine the first exactly.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from jaxvalues.config.reading import read_json
from jaxvalues.config.writing import write_whole
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.tsv import ID, read_table, write_table
from jaxvalues.errors import UserError

THRESHOLDS_FILE = "thresholds.json"


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
        [_probability(cell, path, line, name) for cell, name in zip(row, labels, strict=True)]
        for line, row in enumerate(rows, start=2)
    ]
    return Predictions(ids, np.array(probabilities, np.float32).reshape(-1, len(labels)), labels)


def write_thresholds(
    folder: str | Path, thresholds: ArrayLike, chosen: str, labels: Sequence[str] = CATEGORIES
) -> None:
    """Writes `thresholds.json`: the thresholds (one number or [C]), and how they were chosen ("tuned on ...")."""
    values = np.broadcast_to(thresholds, len(labels)).tolist()
    text = json.dumps({"chosen": chosen, "thresholds": dict(zip(labels, values, strict=True))}, indent=2)
    write_whole(Path(folder) / THRESHOLDS_FILE, text + "\n")


def read_thresholds(folder: str | Path, labels: Sequence[str] = CATEGORIES) -> tuple[np.ndarray, str]:
    """The thresholds [C] of a run folder, and how they were chosen. Raises UserError for a missing or faulty file."""
    path = Path(folder) / THRESHOLDS_FILE
    content = read_json(path, "the thresholds of the run")
    try:
        thresholds = np.array([content["thresholds"][name] for name in labels], np.float64)
        chosen = str(content["chosen"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(
            f"{path}: expected the keys 'chosen' and 'thresholds', with one number per category: {error}"
        ) from None
    if not ((thresholds > 0) & (thresholds <= 1)).all():
        raise UserError(f"{path}: every threshold must be above 0 and at most 1")
    return thresholds, chosen


def _probability(cell: str, path: str | Path, line: int, name: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if not 0 <= value <= 1:
        raise UserError(f"{path}, line {line}: {name} is {cell!r}, but a number between 0 and 1 is expected")
    return value
