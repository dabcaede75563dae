"""The argument browser: what each system said about every argument, the most disputed first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxvalues.study.results import StudyResults

SHOWN = 40
"""Rows of the table that needs no JavaScript."""


@dataclass(frozen=True)
class Browser:
    """The arguments of one split, sorted by how many categories the systems disagree about."""

    split: str
    systems: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    """Each has `id`, `truth` and `said` (category numbers, one list for each system), `disputed`, and maybe `text`.

    Where the runs of a system are divided equally, there is `tied`, in the form of `said`.
    """
    categories: tuple[str, ...]

    @property
    def data(self) -> str:
        """The rows as JSON that may stand in a page."""
        tree = {"categories": self.categories, "systems": self.systems, "rows": self.rows}
        return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")

    @property
    def first(self) -> list[tuple[str, ...]]:
        """The first rows in words: id (and text, if it is there), labels, and what each system said."""
        return [
            (
                ": ".join(filter(None, (row["id"], row.get("text")))),
                self._names(row["truth"]),
                *map(self._names, row["said"], row.get("tied", [[]] * len(self.systems))),
            )
            for row in self.rows[:SHOWN]
        ]

    def _names(self, columns: list[int], tied: Sequence[int] = ()) -> str:
        names = [self.categories[column] for column in columns]
        names += [f"{self.categories[column]} (tie)" for column in tied]
        return ", ".join(names) or "–"


def browse(results: StudyResults, *, with_texts: bool = False) -> Browser | None:
    """The browser of the last reported split; None where nothing is finished.

    What a system says is what most of its runs say; where they are divided equally, it is a tie.
    Texts are there only `with_texts`: their licence, CC BY-SA 4.0, then holds for the page too.
    """
    split = next(reversed(results.splits), None)
    systems = {name: one for name, one in results.systems.items() if split in one.intervals}
    if split is None or not systems:
        return None
    data = results.splits[split]
    shares = [np.mean([run.decisions[split] for run in one.runs], axis=0) for one in systems.values()]
    voted = np.sign(np.stack(shares) - 0.5)  # 1: yes, 0: a tie, -1: no
    disputed = (voted.max(axis=0) > voted.min(axis=0)).sum(axis=1)
    rows = []
    for index in np.argsort(-disputed, kind="stable"):
        argument = data.arguments[index]
        row = {
            "id": argument.id,
            "truth": np.flatnonzero(data.labels[index]).tolist(),
            "said": [np.flatnonzero(one[index] > 0).tolist() for one in voted],
            "disputed": int(disputed[index]),
        }
        if not voted[:, index].all():
            row["tied"] = [np.flatnonzero(one[index] == 0).tolist() for one in voted]
        if with_texts:
            row["text"] = f"{argument.premise} — {argument.stance} — {argument.conclusion}"
        rows.append(row)
    return Browser(split, tuple(systems), tuple(rows), results.categories)
