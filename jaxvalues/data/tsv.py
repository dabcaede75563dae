"""The published file format: tables that are read strictly and written atomically.

A table is UTF-8 text without a byte order mark. It has a header line and one line for each row. The first column is the
argument's ID. Fields are separated by single tabs and are not quoted: three published arguments start a field with a
literal quote. A file in which a CSV writer quoted fields is a problem, as its quotes would be read as text. Two
deviations are accepted, because they change no text: lines that end in CR LF (as written on Windows), and the spelling
"in favour of" of the release of December 2022, which is read as "in favor of". Every other deviation is a problem with
a file and a line. Nothing is repaired.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from jaxvalues.config.writing import write_whole
from jaxvalues.data.arguments import IN_FAVOR, Argument
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.text import ProblemHandler, is_blank, is_csv_quoted, raise_problem, read_text
from jaxvalues.errors import UserError, counted, short

ID = "Argument ID"
ARGUMENT_HEADER: tuple[str, ...] = (ID, "Conclusion", "Stance", "Premise")


def read_arguments(path: str | Path, *, on_problem: ProblemHandler = raise_problem) -> tuple[Argument, ...]:
    """The arguments of one file in the published format.

    Raises UserError at the first problem. With an `on_problem` that collects instead, faulty rows are kept unchanged
    and an unreadable file has no rows.
    """
    arguments = []
    ids, rows = read_table(path, ARGUMENT_HEADER, on_problem=on_problem)
    for line, (id, (conclusion, stance, premise)) in enumerate(zip(ids, rows, strict=True), start=2):
        argument = Argument(id, conclusion, IN_FAVOR if stance == "in favour of" else stance, premise)
        for problem in argument.problems():
            on_problem(f"{path}, line {line}: {problem}")
        for column, text in (("conclusion", conclusion), ("premise", premise)):
            if is_blank(text):
                problem = "has only invisible characters" if text.strip() else "is empty"
                on_problem(f"{path}, line {line}: the {column} of {id} {problem}")
        arguments.append(argument)
    return tuple(arguments)


def read_labels(
    path: str | Path, columns: Sequence[str] = CATEGORIES, *, on_problem: ProblemHandler = raise_problem
) -> tuple[tuple[str, ...], np.ndarray]:
    """The IDs and the 0/1 matrix [n, len(columns)] int8 of a labels file or of a run in the official format.

    Raises UserError at the first problem. With an `on_problem` that collects instead, a cell that is neither 0 nor 1
    becomes -1 and an unreadable file has no rows.
    """
    ids, rows = read_table(path, (ID, *columns), on_problem=on_problem)
    cells = np.array(rows).reshape(len(rows), len(columns))
    wrong = (cells != "0") & (cells != "1")
    for i, c in np.argwhere(wrong):
        on_problem(f"{path}, line {i + 2}: {columns[c]} of {ids[i]} is {rows[i][c]!r}, expected 0 or 1")
    return ids, np.where(wrong, -1, cells == "1").astype(np.int8)


def read_table(
    path: str | Path, header: Sequence[str], *, on_problem: ProblemHandler = raise_problem
) -> tuple[tuple[str, ...], list[list[str]]]:
    """The IDs and the other cells of all rows of a table with exactly this header. Row i is line i + 2 of the file.

    Raises UserError at the first problem. With an `on_problem` that collects instead, a faulty table has no rows.
    """
    text = read_text(Path(path), on_problem)
    if text == "":
        on_problem(f"{path}: the file is empty, expected a header line")
    if not text:
        return (), []
    first, *lines = (line.removesuffix("\r") for line in text.removesuffix("\n").split("\n"))
    if (fields := first.split("\t")) != list(header):
        on_problem(f"{path}, line 1: {_header_problem(fields, header)}")
        return (), []
    rows = [line.split("\t") for line in lines]
    problems = list(_row_problems(lines, rows, len(header)))
    for problem in problems:
        on_problem(f"{path}{problem}")
    if problems:
        return (), []
    ids = tuple(row[0] for row in rows)
    check_ids(path, header[0], ids, range(2, len(ids) + 2), on_problem)
    quoted = [line for line, row in enumerate(rows, start=2) if any(map(is_csv_quoted, row))]
    if quoted:
        more = f", so in {len(quoted)} lines" if len(quoted) > 1 else ""
        on_problem(
            f"{path}, line {quoted[0]}: a field is in quotes with doubled quotes inside, as CSV writers write it{more}"
            "; expected fields as they are, separated by tabs"
        )
    return ids, [row[1:] for row in rows]


def write_table(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table atomically: at every moment `path` is either the old file or the complete new one.

    Raises UserError for a field with a tab, a line break or a NUL, and ValueError for a row that is not as long as the
    header.
    """
    lines = []
    for line, row in enumerate(chain((header,), rows), start=1):
        fields = [str(field) for field in row]
        if len(fields) != len(header):
            raise ValueError(
                f"{path}, line {line}: the row has {counted(len(fields), 'field')}, expected {len(header)}"
            )
        if bad := next((field for field in fields if re.search(r"[\t\n\r\0]", field)), None):
            raise UserError(f"{path}, line {line}: the field {short(bad)} contains a tab, a line break or a NUL")
        lines.append("\t".join(fields) + "\n")
    write_whole(path, "".join(lines))


def _header_problem(fields: list[str], header: Sequence[str]) -> str:
    if len(fields) != len(header):
        found = counted(len(fields), "column")
        return f"the header has {found} separated by tabs, expected {len(header)} ({header[0]}, ...)"
    column = next(i for i, (found, wanted) in enumerate(zip(fields, header, strict=True)) if found != wanted)
    return f"column {column + 1} of the header is {fields[column]!r}, expected {header[column]!r}"


def _row_problems(lines: list[str], rows: list[list[str]], columns: int) -> Iterable[str]:
    if not rows:
        yield ": the file has no rows below the header"
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), start=2):
        if len(row) != columns:
            yield f", line {number}: {counted(len(row), 'column')} separated by tabs, expected {columns}"
        elif "\r" in line:
            yield f", line {number}: the line contains a carriage return, expected it only at the end of a line"


def check_ids(
    path: str | Path, column: str, ids: Sequence[str], lines: Iterable[int], on_problem: ProblemHandler = raise_problem
) -> None:
    """Calls `on_problem` for every ID that is blank or stands there twice. `lines` are those of the IDs in the file."""
    first_line: dict[str, int] = {}
    for line, id in zip(lines, ids, strict=True):
        if not id.strip():
            on_problem(f"{path}, line {line}: the {column} is empty")
        elif first_line.setdefault(id, line) != line:
            on_problem(f"{path}, line {line}: the {column} {id} is already in line {first_line[id]}")
