"""Reads a folder of data in the published format.

A split consists of `arguments-<split>.tsv` and, optionally, `labels-<split>.tsv` and `level1-labels-<split>.tsv`. Its
files must agree.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxvalues.config.reading import user_path
from jaxvalues.data.arguments import SPLITS, Split
from jaxvalues.data.taxonomy import CATEGORIES, VALUE_CATEGORY, VALUES
from jaxvalues.data.text import ProblemHandler, raise_problem
from jaxvalues.data.tsv import read_arguments, read_labels
from jaxvalues.errors import UserError, counted


def split_files(name: str) -> tuple[str, str, str]:
    """The names of a split's three files: arguments, labels, level 1 labels."""
    return f"arguments-{name}.tsv", f"labels-{name}.tsv", f"level1-labels-{name}.tsv"


def splits_in(dir: str | Path) -> tuple[str, ...]:
    """The splits of a folder, in the order of SPLITS. Raises UserError when the folder does not exist."""
    dir = user_path(dir)
    if not dir.is_dir():
        problem = "is a file" if dir.exists() else "no such folder"
        problem += "" if dir.is_absolute() else ", seen from the current folder"
        raise UserError(f"{dir}: {problem}, expected a folder with files named {split_files('<split>')[0]}")
    return tuple(name for name in SPLITS if os.path.lexists(dir / split_files(name)[0]))


def read_split(dir: str | Path, name: str, *, on_problem: ProblemHandler = raise_problem) -> Split:
    """The split `name` of a folder, with the label files that exist.

    Raises UserError when the file of its arguments is missing, and otherwise at the first problem.
    """
    there, dir = splits_in(dir), user_path(dir)
    arguments, *others = (dir / file for file in split_files(name))
    if name not in there:
        found = f"only the splits {', '.join(there)}" if there else "no split"
        raise UserError(f"{dir}: the split {name} needs the file {arguments.name}, but the folder contains {found}")
    labels, level1 = (path if os.path.lexists(path) else None for path in others)
    return read_split_files(name, arguments, labels, level1, on_problem=on_problem)


def read_split_files(
    name: str, arguments: Path, labels: Path | None, level1: Path | None, *, on_problem: ProblemHandler = raise_problem
) -> Split:
    """A split from its files, which must list the same arguments in the same order.

    Raises UserError at the first problem. With an `on_problem` that collects instead, faulty labels become None.
    """
    split = Split(name, read_arguments(arguments, on_problem=on_problem))

    def matrix(path: Path | None, columns: Sequence[str]) -> np.ndarray | None:
        if path is None:
            return None
        ids, cells = read_labels(path, columns, on_problem=on_problem)
        if not (ids and split.ids):  # one of the two files is not a table, and that problem is reported already
            return None
        if problem := _order_problem(split.ids, ids, arguments.name):
            return on_problem(f"{path}{problem}")
        return None if (cells < 0).any() else cells

    split = Split(name, split.arguments, matrix(labels, CATEGORIES), matrix(level1, VALUES))
    if split.labels is not None and split.level1 is not None:
        wrong = np.argwhere(categories_of(split.level1) != split.labels)
        for i, c in wrong[:1]:
            on_problem(
                f"{level1}, line {i + 2}: the values of {split.ids[i]} imply {1 - split.labels[i, c]} for "
                f"{CATEGORIES[c]}, but {labels.name} has {split.labels[i, c]}"
            )
    return split


def check_folder(dir: str | Path) -> tuple[dict[str, Split], list[str]]:
    """All splits of a folder, and one sentence for each problem in its files.

    Raises UserError only when the folder does not exist.
    """
    folder, problems = user_path(dir), []
    splits = {name: read_split(folder, name, on_problem=problems.append) for name in splits_in(folder)}
    if not splits:
        problems.append(f"{folder}: contains no split, expected files such as {split_files(SPLITS[0])[0]}")
    for name in SPLITS:
        arguments, *others = split_files(name)
        if name not in splits and name != "test-nyt":  # its labels are published, its texts are not
            orphans = (folder / file for file in others if os.path.lexists(folder / file))
            problems += [f"{path}: the arguments of these labels are missing, expected {arguments}" for path in orphans]
    known = {split_files(name)[0] for name in SPLITS}
    unknown = sorted(path for path in folder.glob("arguments-*.tsv") if path.name not in known)
    problems += [f"{path}: the name contains no known split, expected one of {', '.join(SPLITS)}" for path in unknown]
    return splits, problems + _shared_ids(splits)


def categories_of(level1: np.ndarray) -> np.ndarray:
    """Category labels [n, 20] from level 1 labels [n, 54]: an argument has a category if it has one of its values."""
    owner = np.asarray(VALUE_CATEGORY)
    return np.stack([level1[:, owner == c].max(axis=1) for c in range(len(CATEGORIES))], axis=1)


def _order_problem(ids: tuple[str, ...], labelled: tuple[str, ...], arguments: str) -> str | None:
    """The first difference between the IDs of a labels file and those of the arguments file, or None."""
    missing, extra = set(ids) - set(labelled), set(labelled) - set(ids)
    if missing:
        first = next(id for id in ids if id in missing)
        return f": no row for {counted(len(missing), 'argument')} of {arguments}, the first is {first}"
    for line, (labelled_id, id) in enumerate(zip(labelled, ids, strict=False), start=2):
        if labelled_id in extra:
            return f", line {line}: {labelled_id} is not in {arguments}"
        if labelled_id != id:
            return f", line {line}: the ID is {labelled_id}, expected {id} as in the same line of {arguments}"
    if len(labelled) != len(ids):
        return f": has {counted(len(labelled), 'row')}, expected {len(ids)} as in {arguments}"
    return None


def _shared_ids(splits: dict[str, Split]) -> list[str]:
    home: dict[str, str] = {}
    problems = []
    for name, split in splits.items():
        shared = [id for id in split.ids if home.setdefault(id, name) != name]
        if shared:
            problems.append(
                f"the splits {home[shared[0]]} and {name} share {counted(len(shared), 'ID')}, the first is {shared[0]}"
            )
    return problems
