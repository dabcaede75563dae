"""A user's own arguments, from a table of any common kind. Only the premise is needed.

Columns are found by name, in any order and case: Premise, Conclusion, Stance, Argument ID (or ID). All others are kept.
What is absent gets a default, and `UserFile.notes` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument
from jaxvalues.data.delimited import Row, Table, read_delimited
from jaxvalues.data.text import is_blank
from jaxvalues.errors import UserError

_COLUMNS = {"argument id": "id", "id": "id", "conclusion": "conclusion", "stance": "stance", "premise": "premise"}
_SHOWN = {"id": "Argument ID", "conclusion": "Conclusion", "stance": "Stance", "premise": "Premise"}
_STANCES = dict.fromkeys(("in favor of", "in favour of", "in favor", "in favour", "for", "pro"), IN_FAVOR)
_STANCES |= dict.fromkeys(("against", "con"), AGAINST)


@dataclass(frozen=True)
class UserFile:
    """The arguments of a user's file, and the table they stand in."""

    path: Path
    arguments: tuple[Argument, ...]
    header: tuple[str, ...]
    """The names of all columns, as written."""
    rows: tuple[tuple[str, ...], ...]
    """The cells of all columns, one row for each argument."""
    delimiter: str
    has_mark: bool
    """Whether the file began with a byte order mark; Excel needs one to read UTF-8."""
    absent: frozenset[str]
    """The columns that are not there: id, conclusion, stance."""
    has_all_stances: bool
    """Whether every row gives its stance."""
    notes: tuple[str, ...]
    """What was assumed where something is absent, one sentence each."""


def read_user_file(path: str | Path) -> UserFile:
    """Read a user's arguments from a CSV or tab-separated file with a header.

    An absent conclusion is left empty, an absent stance is "in favor of", absent IDs are the numbers of the rows.
    Raises UserError with file and line for a file that is no table or has no premise, for a row without a premise, for
    an unknown stance, and for an ID that is empty or stands there twice.
    """
    path = Path(path)
    table = read_delimited(path, "a column Premise")
    header = tuple(name.strip() or f"column {number}" for number, name in enumerate(table.header, start=1))
    where = _columns(path, header)
    if not table.rows:
        raise UserError(f"{path}: holds a header but no rows")
    arguments = tuple(_argument(path, row, number, where) for number, row in enumerate(table.rows, start=1))
    _check_ids(path, table, arguments, "id" in where)
    return UserFile(
        path=path,
        arguments=arguments,
        header=header,
        rows=tuple(row.cells for row in table.rows),
        delimiter=table.delimiter if table.delimiter in "\t;," else ",",
        has_mark=table.has_mark,
        absent=frozenset(_SHOWN) - where.keys(),
        has_all_stances="stance" in where and not any(is_blank(row.cells[where["stance"]]) for row in table.rows),
        notes=tuple(_notes(table, where)),
    )


def _columns(path: Path, header: tuple[str, ...]) -> dict[str, int]:
    """Where the known columns stand: {id, conclusion, stance, premise: position}."""
    where: dict[str, int] = {}
    seen = set()
    for position, name in enumerate(header):
        plain = " ".join(name.casefold().replace("_", " ").split())
        known = _COLUMNS.get(plain)
        if plain in seen or known in where:
            raise UserError(f"{path}, line 1: the header names the column {name} twice")
        seen.add(plain)
        if known is not None:
            where[known] = position
    if "premise" not in where:
        named = ", ".join(name[:30] for name in header[:3]) + (
            f" and {len(header) - 3} more" if len(header) > 3 else ""
        )
        raise UserError(f"{path}, line 1: no column is named Premise, only {named}; the first line must name columns")
    return where


def _argument(path: Path, row: Row, number: int, where: dict[str, int]) -> Argument:
    cells = {name: row.cells[position] for name, position in where.items()}
    if is_blank(cells["premise"]):
        problem = "holds invisible characters only" if cells["premise"].strip() else "is empty"
        raise UserError(f"{path}, line {row.line}: the premise {problem}")
    conclusion, stance = cells.get("conclusion", ""), cells.get("stance", "")
    found = IN_FAVOR if is_blank(stance) else _STANCES.get(" ".join(stance.casefold().split()))
    if found is None:
        raise UserError(f"{path}, line {row.line}: the stance is {stance[:40]!r}, expected {IN_FAVOR!r} or {AGAINST!r}")
    id = cells.get("id", str(number)).strip()
    argument = Argument(id, "" if is_blank(conclusion) else conclusion, found, cells["premise"])
    for problem in argument.problems():
        raise UserError(f"{path}, line {row.line}: {problem}")
    return argument


def _check_ids(path: Path, table: Table, arguments: tuple[Argument, ...], are_given: bool) -> None:
    if not are_given:
        return
    first_line: dict[str, int] = {}
    for row, argument in zip(table.rows, arguments, strict=True):
        if is_blank(argument.id) or any(character in argument.id for character in "\t\r\n"):
            problem = "is empty" if is_blank(argument.id) else "holds a tab or a line break"
            raise UserError(f"{path}, line {row.line}: the Argument ID {problem}")
        if first_line.setdefault(argument.id, row.line) != row.line:
            before = first_line[argument.id]
            raise UserError(f"{path}, line {row.line}: the Argument ID {argument.id} stands in line {before} already")


def _notes(table: Table, where: dict[str, int]) -> list[str]:
    """One sentence for each column that is absent or has blank cells, and for quotes that are removed."""
    wording: dict[str, Callable[[str], str]] = {
        "conclusion": lambda rows: f"{rows} no conclusion: it is left empty",
        "stance": lambda rows: f'{rows} no stance: it is taken to be "{IN_FAVOR}"',
    }
    notes = []
    for name, say in wording.items():
        if name not in where:
            notes.append(say("The file has"))
        elif blank := sum(is_blank(row.cells[where[name]]) for row in table.rows):
            notes.append(say(f"{blank} of {len(table.rows)} rows have" if blank > 1 else "One row has"))
    if table.delimiter == "\t" and table.quoted:  # the published format of tabs knows no quoting
        cells = f"{table.quoted} cells are" if table.quoted > 1 else "One cell is"
        notes.append(f"{cells} in quotes, as CSV writers write them: these quotes are removed")
    if "id" not in where:
        notes.append("The file has no column Argument ID: arguments are numbered from 1")
    return notes
