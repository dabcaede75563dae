"""Run and labels files as the official evaluator reads them: tables of numbers whose columns are found by name.

The columns may have any order, and a category without a column counts as 0 for every argument. A byte order mark,
quoted cells and blank lines are accepted. `read_predictions` and `read_labels` are stricter; they read what this
package writes and publishes.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvalues.data.delimited import Row, read_delimited
from jaxvalues.data.numbers import parse_number
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.tsv import ID, check_ids
from jaxvalues.errors import UserError, name_list


class NamedColumns(NamedTuple):
    """The rows of a run or labels file, with their columns in the order of CATEGORIES."""

    ids: tuple[str, ...]
    values: np.ndarray
    """[n, C] float64 in [0, 1]; 0 in the columns of `absent`."""
    absent: tuple[str, ...]
    """The categories that have no column."""


def read_named_columns(path: str | Path, *, binary: bool = False) -> NamedColumns:
    """The numbers of a run or labels file, all in [0, 1]; with `binary`, all 0 or 1.

    Raises UserError with file and line for a header without a column `Argument ID`, without any category or with
    another column, for an ID that is blank or stands there twice, and for other cells.
    """
    table = read_delimited(path, f"a column {ID} and categories, separated by tabs", delimiters="\t")
    _check_header(path, table.header)
    if not table.rows:
        raise UserError(f"{path}: the file has no rows below the header")
    at = table.header.index(ID)
    ids = tuple(row.cells[at] for row in table.rows)
    check_ids(path, ID, ids, [row.line for row in table.rows])
    values = np.zeros((len(ids), len(CATEGORIES)))
    for position, name in enumerate(table.header):
        if name != ID:
            values[:, CATEGORIES.index(name)] = [_value(path, row, position, name, binary) for row in table.rows]
    return NamedColumns(ids, values, tuple(name for name in CATEGORIES if name not in table.header))


def _check_header(path: str | Path, header: Sequence[str]) -> None:
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{path}, line 1: the header names the column {name[:40]!r} twice")
    if ID not in header:
        named = name_list(repr(name[:40]) for name in header)
        raise UserError(f"{path}, line 1: no column is named {ID!r}, only {named}; expected names separated by tabs")
    for name in header:
        if name not in (ID, *CATEGORIES):
            near = difflib.get_close_matches(name, CATEGORIES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one such as {CATEGORIES[0]!r}"
            raise UserError(f"{path}, line 1: the column {name[:40]!r} is no category; {hint}")
    if len(header) == 1:
        raise UserError(f"{path}, line 1: the header has only the column {ID!r}, expected categories beside it")


def _value(path: str | Path, row: Row, position: int, name: str, binary: bool) -> float:
    cell = row.cells[position]
    value = parse_number(cell.strip(" "))
    if value is None or not 0 <= value <= 1 or (binary and value not in (0, 1)):
        expected = "0 or 1" if binary else "a number between 0 and 1"
        raise UserError(f"{path}, line {row.line}: {name} is {cell[:40]!r}, but {expected} is expected")
    return value
