"""A folder of the published files: for each split its arguments, labels and level 1 labels, which must agree.

`arguments-<split>.tsv` is what makes a split; `labels-<split>.tsv` and `level1-labels-<split>.tsv` are optional.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxvalues.data.arguments import SPLITS, Split
from jaxvalues.data.taxonomy import CATEGORIES, VALUE_CATEGORY, VALUES
from jaxvalues.data.text import Report, stop
from jaxvalues.data.tsv import read_arguments, read_labels
from jaxvalues.errors import UserError


def split_files(name: str) -> tuple[str, str, str]:
    """The names of a split's three files: arguments, labels, level 1 labels."""
    return f"arguments-{name}.tsv", f"labels-{name}.tsv", f"level1-labels-{name}.tsv"


def splits_in(dir: str | Path) -> tuple[str, ...]:
    """The splits whose arguments a folder holds. Raises UserError when there is no such folder."""
    if not Path(dir).is_dir():
        raise UserError(f"{dir}: no such folder, expected the one with the files {split_files('<split>')[0]}")
    return tuple(name for name in SPLITS if (Path(dir) / split_files(name)[0]).is_file())


def read_split(dir: str | Path, name: str, *, report: Report = stop) -> Split:
    """The split `name` of a folder, with whichever of its two label files are there.

    Raises UserError when its arguments are not there (saying which splits are), and at the first problem.
    """
    there = splits_in(dir)
    arguments, *others = (Path(dir) / file for file in split_files(name))
    if name not in there:
        found = f"the splits there are {', '.join(there)}" if there else "no split is there"
        raise UserError(f"{dir}: the split {name} needs the file {arguments.name}, but {found}")
    return read_split_files(name, arguments, *(path if path.is_file() else None for path in others), report=report)


def read_split_files(
    name: str, arguments: Path, labels: Path | None, level1: Path | None, *, report: Report = stop
) -> Split:
    """A split from its files, which must list the same arguments in the same order.

    With a collecting `report`, labels that cannot be trusted are None. Raises UserError at the first problem otherwise.
    """
    split = Split(name, read_arguments(arguments, report=report))

    def matrix(path: Path | None, columns: Sequence[str]) -> np.ndarray | None:
        if path is None:
            return None
        ids, cells = read_labels(path, columns, report=report)
        if not (ids and split.ids):  # one of the two is no table, which has been reported
            return None
        if problem := _order_problem(split.ids, ids, arguments.name):
            return report(f"{path}{problem}")
        return None if (cells < 0).any() else cells

    split = Split(name, split.arguments, matrix(labels, CATEGORIES), matrix(level1, VALUES))
    if split.labels is not None and split.level1 is not None:
        wrong = np.argwhere(categories_of(split.level1) != split.labels)
        for i, c in wrong[:1]:
            report(
                f"{level1}, line {i + 2}: the values of {split.ids[i]} give {1 - split.labels[i, c]} for "
                f"{CATEGORIES[c]}, but {labels.name} says {split.labels[i, c]}"
            )
    return split


def check_folder(dir: str | Path) -> tuple[dict[str, Split], list[str]]:
    """Every split of a folder, and one sentence for every problem of its files (none when all is well).

    Raises UserError only when there is no such folder.
    """
    folder, problems = Path(dir), []
    splits = {name: read_split(folder, name, report=problems.append) for name in splits_in(folder)}
    if not splits:
        problems.append(f"{folder}: holds no split, expected files such as {split_files(SPLITS[0])[0]}")
    for name in SPLITS:
        arguments, *others = split_files(name)
        if name not in splits and name != "test-nyt":  # whose labels are published, but whose texts are not
            orphans = (folder / file for file in others if (folder / file).is_file())
            problems += [f"{path}: labels arguments that are not there, expected {arguments}" for path in orphans]
    known = {split_files(name)[0] for name in SPLITS}
    strangers = sorted(path for path in folder.glob("arguments-*.tsv") if path.name not in known)
    problems += [f"{path}: names no known split, which are {', '.join(SPLITS)}" for path in strangers]
    return splits, problems + _shared_ids(splits)


def categories_of(level1: np.ndarray) -> np.ndarray:
    """Level 1 labels [n, 54] -> category labels [n, 20]: a category is there when one of its values is."""
    owner = np.asarray(VALUE_CATEGORY)
    return np.stack([level1[:, owner == c].max(axis=1) for c in range(len(CATEGORIES))], axis=1)


def _order_problem(ids: tuple[str, ...], labelled: tuple[str, ...], arguments: str) -> str | None:
    """The first line of a labels file that departs from the arguments file, in words."""
    missing, extra = set(ids) - set(labelled), set(labelled) - set(ids)
    if missing:
        first = next(id for id in ids if id in missing)
        return f": has no row for {len(missing)} of the arguments in {arguments}, the first is {first}"
    for line, (labelled_id, id) in enumerate(zip(labelled, ids, strict=False), start=2):
        if labelled_id in extra:
            return f", line {line}: {labelled_id} is not in {arguments}"
        if labelled_id != id:
            return f", line {line}: {labelled_id} stands where {arguments} has {id}, expected the same order"
    if len(labelled) != len(ids):
        return f": has {len(labelled)} rows, expected {len(ids)} as in {arguments}"
    return None


def _shared_ids(splits: dict[str, Split]) -> list[str]:
    home: dict[str, str] = {}
    problems = []
    for name, split in splits.items():
        shared = [id for id in split.ids if home.setdefault(id, name) != name]
        if shared:
            problems.append(
                f"the splits {home[shared[0]]} and {name} share {len(shared)} IDs, the first is {shared[0]}"
            )
    return problems
