"""The published file format, read strictly and written atomically.

A table is UTF-8 text without a byte order mark: a header line and one line for each row, fields separated by single
tabs, **no quoting** (three published arguments start a field with a literal quote). A folder holds, for each split,
`arguments-<split>.tsv`, `labels-<split>.tsv` and `level1-labels-<split>.tsv`; the last two are optional.

Two things are accepted beyond the published files, since they change no text: lines that end in CR LF (editors and
git on Windows write them), and the spelling "in favour of" of the release of December 2022, read as "in favor of".
Everything else that is wrong gets one sentence with the file and the line, and nothing is repaired.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np

from jaxvalues.data.arguments import IN_FAVOR, SPLITS, STANCES, Argument, Split
from jaxvalues.data.taxonomy import CATEGORIES, VALUE_CATEGORY, VALUES
from jaxvalues.errors import UserError

ID = "Argument ID"
ARGUMENT_HEADER: tuple[str, ...] = (ID, "Conclusion", "Stance", "Premise")

Report = Callable[[str], None]
"""Takes one sentence about one problem. The readers' default raises it; `list.append` collects them instead."""


def _stop(problem: str) -> None:
    raise UserError(problem)


@dataclass(frozen=True)
class _Table:
    path: Path
    rows: list[list[str]]  # row i stands in line i + 2

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(row[0] for row in self.rows)


def read_arguments(path: str | Path, *, report: Report = _stop) -> tuple[Argument, ...]:
    """The arguments of one file, labelled or not (the input of a prediction needs nothing else).

    Raises UserError at the first problem, unless `report` takes the problems.
    """
    table = _read_table(Path(path), ARGUMENT_HEADER, report)
    return _to_arguments(table, report) if table else ()


def read_labels(
    path: str | Path, columns: Sequence[str] = CATEGORIES, *, report: Report = _stop
) -> tuple[tuple[str, ...], np.ndarray]:
    """The IDs and the 0/1 matrix [n, len(columns)] int8 of a labels file or of a run in the official format.

    Raises UserError at the first problem, unless `report` takes the problems.
    """
    table = _read_table(Path(path), (ID, *columns), report)
    return (table.ids, _to_labels(table, columns, report)) if table else ((), np.zeros((0, len(columns)), np.int8))


def read_split(dir: str | Path, name: str, *, report: Report = _stop) -> Split:
    """The split `name` of a folder, with whichever of its two label files are there.

    Raises UserError when its arguments file is absent (saying which splits are there) or at the first problem.
    """
    folder = Path(dir)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: data.dir must name the folder with the files arguments-*.tsv.")
    arguments, labels, level1 = (folder / file for file in split_files(name))
    if not arguments.is_file():
        there = ", ".join(s for s in SPLITS if (folder / split_files(s)[0]).is_file()) or "none"
        raise UserError(f"the split {name} is not in {folder}: looked for {arguments.name}; splits there: {there}.")
    present = [path if path.is_file() else None for path in (labels, level1)]
    return read_split_files(name, arguments, *present, report=report)


def read_split_files(
    name: str, arguments: Path, labels: Path | None, level1: Path | None, *, report: Report = _stop
) -> Split:
    """A split from its files, wherever they lie; checks that they speak of the same arguments in the same order.

    level1 must combine by "or" to labels exactly. Raises UserError at the first problem; with a collecting `report`,
    what could not be read is left out (no arguments) or None (labels).
    """
    argument_table = _read_table(arguments, ARGUMENT_HEADER, report)
    split = Split(name, _to_arguments(argument_table, report) if argument_table else ())
    matrices: list[np.ndarray | None] = []
    for path, columns in ((labels, CATEGORIES), (level1, VALUES)):
        table = _read_table(path, (ID, *columns), report) if path else None
        matrix = _to_labels(table, columns, report) if table else None
        if table and argument_table and not _same_ids(argument_table, table, report):
            matrix = None
        matrices.append(matrix if argument_table else None)
    if all(matrix is not None for matrix in matrices):
        _check_level1(level1, split.ids, *matrices, report)
    return Split(name, split.arguments, *matrices)


def check_folder(dir: str | Path) -> tuple[dict[str, Split], list[str]]:
    """Every split found in a folder, and one sentence for every problem of its files (none when all is well).

    Raises UserError only when there is no such folder.
    """
    folder, problems = Path(dir), []
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder with the files arguments-*.tsv.")
    splits = {}
    for name in SPLITS:
        arguments, *label_files = split_files(name)
        if (folder / arguments).is_file():
            splits[name] = read_split(folder, name, report=problems.append)
        elif name != "test-nyt":  # its labels are published, its texts are not
            orphans = (file for file in label_files if (folder / file).is_file())
            problems += [f"{folder / file}: there is no {arguments} with the arguments it labels." for file in orphans]
    known = {split_files(name)[0] for name in SPLITS}
    strangers = sorted(path for path in folder.glob("arguments-*.tsv") if path.name not in known)
    problems += [f"{path}: names no known split, which are {', '.join(SPLITS)}." for path in strangers]
    if not splits:
        problems.append(f"{folder}: holds no split; expected files such as {split_files(SPLITS[0])[0]}.")
    return splits, problems + _shared_ids(splits)


def split_files(name: str) -> tuple[str, str, str]:
    """The names of a split's three files: arguments, labels, level 1 labels."""
    return f"arguments-{name}.tsv", f"labels-{name}.tsv", f"level1-labels-{name}.tsv"


def categories_of(level1: np.ndarray) -> np.ndarray:
    """Level 1 labels [n, 54] -> category labels [n, 20]: a category is there when one of its values is."""
    owner = np.asarray(VALUE_CATEGORY)
    return np.stack([level1[:, owner == c].max(axis=1) for c in range(len(CATEGORIES))], axis=1)


def write_table(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table so that at every moment `path` is either the old file or the complete new one.

    Raises UserError for a field that the format cannot hold (a tab, a line break, a NUL, or an unpaired surrogate) and
    ValueError for a row that is not as long as the header.
    """
    path = Path(path)
    with NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as file:
        try:
            for number, row in enumerate((header, *rows) if isinstance(rows, tuple) else _chain(header, rows), start=1):
                if len(row) != len(header):
                    raise ValueError(f"{path}, line {number}: {len(row)} fields under a header of {len(header)}")
                file.write(_encode(path, number, [str(field) for field in row]))
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(file.name)
            raise
