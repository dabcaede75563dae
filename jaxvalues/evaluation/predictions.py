"""A system's predictions on a split, and the three files that hold them.

- `predictions-<split>.tsv`, the official run format: `Argument ID` and the 20 categories, each 0 or 1. Of another task
  (`jaxvalues.data.task`): that task's labels in their place.
- `probabilities-<split>.tsv`: the same table with the probabilities behind the decisions.
- `thresholds.json`, beside them: the threshold of every label, and how it was chosen.

The last two give the first again, bit for bit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.tsv import ID, read_table, write_table
from jaxvalues.errors import UserError

THRESHOLDS_FILE = "thresholds.json"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities [n, C] (float32, in [0, 1], one column for each of `labels`) of the arguments `ids`.

    Raises UserError for any other shape, and for a value outside [0, 1] or not finite.
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
        """Whether everything is 0 or 1, as in a file in the official run format."""
        return bool(np.isin(self.probabilities, (0, 1)).all())

    def write_probabilities(self, path: str | Path) -> None:
        """Write the probabilities such that `read_predictions` gives back the same float32 bits."""
        # Nine significant digits tell any two float32 apart.
        rows = self.probabilities.tolist()
        write_table(
            path, self._header, [(i, *(f"{p:.9g}" for p in row)) for i, row in zip(self.ids, rows, strict=True)]
        )

    def write_run(self, path: str | Path, decisions: np.ndarray) -> None:
        """Write decisions [n, C] of 0 and 1 about the same arguments in the official run format."""
        if decisions.shape != self.probabilities.shape or not np.isin(decisions, (0, 1)).all():
            raise UserError(f"the decisions for {path} must be 0 or 1 in the shape {list(self.probabilities.shape)}")
        rows = decisions.astype(int).tolist()
        write_table(path, self._header, [(i, *row) for i, row in zip(self.ids, rows, strict=True)])

    @property
    def _header(self) -> tuple[str, ...]:
        return (ID, *self.labels)


def read_predictions(path: str | Path, labels: tuple[str, ...] = CATEGORIES) -> Predictions:
    """Read a probabilities file or a run in the official format, whose 0 and 1 are probabilities too.

    Raises UserError naming file and line for anything but the expected header, one row for each argument and, in every
    cell, a number between 0 and 1.
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
    """Keep what was decided with: one threshold or [C], and in a few words how it was chosen ("tuned on ...")."""
    values = np.broadcast_to(thresholds, len(labels)).tolist()
    text = json.dumps({"chosen": chosen, "thresholds": dict(zip(labels, values, strict=True))}, indent=2)
    path = Path(folder) / THRESHOLDS_FILE
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def read_thresholds(folder: str | Path, labels: Sequence[str] = CATEGORIES) -> tuple[np.ndarray, str]:
    """The thresholds [C] of a run folder and how they were chosen; UserError if the file is absent or incomplete."""
    path = Path(folder) / THRESHOLDS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        thresholds = np.array([content["thresholds"][name] for name in labels], np.float64)
        chosen = str(content["chosen"])
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, so it is not known how the run's probabilities are decided") from None
    except (ValueError, KeyError, TypeError) as error:  # JSON and Unicode errors are ValueErrors
        raise UserError(
            f"{path}: expected 'chosen' and, under 'thresholds', one number per category: {error}"
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
