"""The published file format: tables, read strictly and written atomically.

A table is UTF-8 text without a byte order mark: a header line and one line for each row, its first column the
argument's ID, fields separated by single tabs, **no quoting** (three published arguments start a field with a literal
quote). Two things are accepted beyond the published files, since they change no text: lines that end in CR LF (editors
and git on Windows write them), and the spelling "in favour of" of the release of December 2022, read as "in favor of".
Everything else that is wrong gets one sentence with the file and the line; nothing is repaired.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from jaxvalues.data.arguments import IN_FAVOR, Argument
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.text import Report, is_blank, read_text, stop
from jaxvalues.errors import UserError

ID = "Argument ID"
ARGUMENT_HEADER: tuple[str, ...] = (ID, "Conclusion", "Stance", "Premise")


def read_arguments(path: str | Path, *, report: Report = stop) -> tuple[Argument, ...]:
    """The arguments of one file, labelled or not (the input of a prediction needs nothing else).

    With a collecting `report`, a faulty row is kept as it stands and an unreadable file has no rows.
    Raises UserError at the first problem otherwise.
    """
    arguments = []
    for line, (id, cells) in enumerate(zip(*read_table(path, ARGUMENT_HEADER, report=report), strict=True), start=2):
        conclusion, stance, premise = cells
        argument = Argument(id, conclusion, IN_FAVOR if stance == "in favour of" else stance, premise)
        for fault in argument.faults():
            report(f"{path}, line {line}: {fault}")
        for column, text in (("conclusion", conclusion), ("premise", premise)):
            if is_blank(text):
                problem = "holds invisible characters only" if text.strip() else "is empty"
                report(f"{path}, line {line}: the {column} of {id} {problem}")
        arguments.append(argument)
    return tuple(arguments)


def read_labels(
    path: str | Path, columns: Sequence[str] = CATEGORIES, *, report: Report = stop
) -> tuple[tuple[str, ...], np.ndarray]:
    """The IDs and the 0/1 matrix [n, len(columns)] int8 of a labels file or of a run in the official format.

    With a collecting `report`, a cell that is neither 0 nor 1 is -1 and an unreadable file has no rows.
    Raises UserError at the first problem otherwise.
    """
    ids, rows = read_table(path, (ID, *columns), report=report)
    cells = np.array(rows).reshape(len(rows), len(columns))
    wrong = (cells != "0") & (cells != "1")
    for i, c in np.argwhere(wrong):
        report(f"{path}, line {i + 2}: {columns[c]} of {ids[i]} is {rows[i][c]!r}, expected 0 or 1")
    return ids, np.where(wrong, -1, cells == "1").astype(np.int8)


def read_table(
    path: str | Path, header: Sequence[str], *, report: Report = stop
) -> tuple[tuple[str, ...], list[list[str]]]:
    """The IDs and the remaining cells of every row below exactly this header; row i stands in line i + 2.

    With a collecting `report`, a file that is not such a table has no rows. Raises UserError at the first problem
    otherwise.
    """
    text = read_text(Path(path), report)
    if text == "":
        report(f"{path}: the file is empty, expected a header line")
    if not text:
        return (), []
    first, *lines = (line.removesuffix("\r") for line in text.removesuffix("\n").split("\n"))
    if (fields := first.split("\t")) != list(header):
        report(f"{path}, line 1: {_header_problem(fields, header)}")
        return (), []
    rows = [line.split("\t") for line in lines]
    problems = list(_row_problems(lines, rows, len(header)))
    for problem in problems:
        report(f"{path}{problem}")
    if problems:
        return (), []
    ids = tuple(row[0] for row in rows)
    _check_ids(path, header[0], ids, report)
    return ids, [row[1:] for row in rows]


def write_table(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table so that at every moment `path` is either the old file or the complete new one.

    Raises UserError for a field that the format cannot hold (a tab, a line break or a NUL) and ValueError for a row
    that is not as long as the header.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # in the same folder: only there is a rename atomic
    try:
        with partial.open("wb") as file:
            for line, row in enumerate(chain((header,), rows), start=1):
                fields = [str(field) for field in row]
                if len(fields) != len(header):
                    raise ValueError(f"{path}, line {line}: {len(fields)} fields under a header of {len(header)}")
                if bad := next((field for field in fields if re.search(r"[\t\n\r\0]", field)), None):
                    raise UserError(f"{path}, line {line}: a field cannot hold a tab, line break or NUL: {bad!r}")
                file.write(("\t".join(fields) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _header_problem(fields: list[str], header: Sequence[str]) -> str:
    if len(fields) != len(header):
        return f"the header has {len(fields)} columns separated by tabs, expected {len(header)} ({header[0]}, ...)"
    column = next(i for i, (found, wanted) in enumerate(zip(fields, header, strict=True)) if found != wanted)
    return f"column {column + 1} of the header is {fields[column]!r}, expected {header[column]!r}"


def _row_problems(lines: list[str], rows: list[list[str]], columns: int) -> Iterable[str]:
    if not rows:
        yield ": holds a header but no rows"
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), start=2):
        if len(row) != columns:
            yield f", line {number}: {len(row)} columns separated by tabs, expected {columns}"
        elif "\r" in line:
            yield f", line {number}: a carriage return inside the line"


def _check_ids(path: str | Path, column: str, ids: tuple[str, ...], report: Report) -> None:
    first_line: dict[str, int] = {}
    for line, id in enumerate(ids, start=2):
        if not id.strip():
            report(f"{path}, line {line}: the {column} is empty")
        elif first_line.setdefault(id, line) != line:
            report(f"{path}, line {line}: the {column} {id} stands in line {first_line[id]} already")
