"""Systems that can fail to answer, such as endpoints: what is missing is left out of the scores, and they say so.

Missing is a mask [n, C], true where a system has nothing to say about a category of an argument. It is not a No.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxvalues.data.arguments import Split
from jaxvalues.data.task import Task
from jaxvalues.data.text import read_text
from jaxvalues.data.tsv import ID, write_table
from jaxvalues.errors import UserError, short
from jaxvalues.evaluation.measures import TaskScores, measure_of
from jaxvalues.evaluation.thresholds import EXCLUDED

MARK = "*"
"""Stands behind the figures of incomplete predictions."""
HEADER = (ID, "Category")


def score_answered(
    task: Task,
    truth: np.ndarray,
    decisions: np.ndarray,
    missing: np.ndarray | None,
    asked: np.ndarray | None = None,
) -> TaskScores:
    """The scores of decisions about what is not missing; all arrays are [n, C].

    `asked` is what a system was asked about, all by default: the rest needs no answer.

    A label with nothing missing is scored as ever. One that is missing for some arguments is scored on the others: a
    cell that is 0 in truth and decision counts neither as found nor as true.
    """
    score = measure_of(task).score
    if missing is None or not missing.any():
        return score(truth, decisions)
    if task.has_categories:
        found = score(np.where(missing, 0, truth), np.where(missing, 0, decisions))
    else:
        there = ~missing.any(axis=1)
        found = score(truth[there], decisions[there])
    return replace(found, coverage=coverage_of(missing, asked))


def coverage_of(missing: np.ndarray, asked: np.ndarray | None = None) -> float:
    """The share that is not missing, of all or of what was asked."""
    number = missing.size if asked is None else int(asked.sum())
    return 1.0 - float(missing.sum()) / number if number else 1.0


def for_tuning(split: Split, logits: np.ndarray, missing: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(labels, logits) of a split [n, C], by which thresholds are tuned: what is missing is neither true nor found."""
    if missing is None or not missing.any():
        return split.labels, logits
    return np.where(missing, 0, split.labels), np.where(missing, EXCLUDED, logits)


def mark(*scores: TaskScores) -> str:
    """What stands behind a figure: a mark where one of the scores is incomplete, else nothing."""
    return MARK if any(one.coverage < 1 for one in scores) else ""


def note(scores: Mapping[str, TaskScores]) -> str | None:
    """A sentence about the incomplete ones of {name: scores}; None without any."""
    parts = [f"{name} {in_percent(one.coverage)}" for name, one in scores.items() if one.coverage < 1]
    if not parts:
        return None
    answered = ", ".join(parts)
    return f"{MARK} INCOMPLETE: {answered} of the questions have an answer; the others are left out of the scores."


def in_percent(coverage: float) -> str:
    """A coverage in words, never rounded up to all: "99.98 %"."""
    return f"{math.floor(coverage * 10_000) / 100:.2f} %"


def missing_file(table: Path) -> Path | None:
    """The list of what is missing beside a table of predictions; None where nothing is, or the table is another's."""
    kind, found, split = table.name.partition("-")
    path = table.with_name(f"missing-{split}")
    return path if found and kind in ("predictions", "probabilities", "logits") and path.is_file() else None


def write_missing(path: Path, ids: Sequence[str], labels: Sequence[str], missing: np.ndarray) -> None:
    """Write the list of what is missing: a row for each argument and label. Without any, there is no file."""
    if not missing.any():
        path.unlink(missing_ok=True)
        return
    write_table(path, HEADER, [(ids[row], labels[column]) for row, column in np.argwhere(missing)])


def read_missing(path: Path, ids: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """The mask [n, C] of what a list of `write_missing` names; nothing is missing without the file.

    Raises UserError for another header, and for a row without an argument of `ids` and one of `labels`.
    """
    missing = np.zeros((len(ids), len(labels)), bool)
    if not path.is_file():
        return missing
    places = {f"{id}\t{label}": (row, column) for row, id in enumerate(ids) for column, label in enumerate(labels)}
    header, *rows = read_text(path).splitlines()
    if header != "\t".join(HEADER):
        raise UserError(f"{path}, line 1: expected the header {' and '.join(HEADER)}, separated by a tab")
    for line, text in enumerate(rows, start=2):
        if text not in places:
            raise UserError(f"{path}, line {line}: {short(text)} is no argument of the predictions with a category")
        missing[places[text]] = True
    return missing
