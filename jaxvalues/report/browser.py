"""The argument browser: what each system said about every argument, the most disputed first."""

from __future__ import annotations

import json
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
    """Each has `id`, `truth` and `said` (category numbers, one list for each system), `disputed`, and maybe `text`."""
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
                *(self._names(said) for said in row["said"]),
            )
            for row in self.rows[:SHOWN]
        ]

    def _names(self, columns: list[int]) -> str:
        return ", ".join(self.categories[column] for column in columns) or "–"


def browse(results: StudyResults, *, with_texts: bool = False) -> Browser | None:
    """The browser of the last reported split; None where nothing is finished. Systems speak by majority of their runs.

    Texts are there only `with_texts`: their licence, CC BY-SA 4.0, then holds for the page too.
    """
    split = next(reversed(results.splits), None)
    systems = {name: one for name, one in results.systems.items() if split in one.intervals}
    if split is None or not systems:
        return None
    data = results.splits[split]
    said = np.stack([np.mean([run.decisions[split] for run in one.runs], axis=0) >= 0.5 for one in systems.values()])
    disputed = (said.any(axis=0) & ~said.all(axis=0)).sum(axis=1)
    rows = []
    for index in np.argsort(-disputed, kind="stable"):
        argument = data.arguments[index]
        row = {
            "id": argument.id,
            "truth": np.flatnonzero(data.labels[index]).tolist(),
            "said": [np.flatnonzero(one[index]).tolist() for one in said],
            "disputed": int(disputed[index]),
        }
        if with_texts:
            row["text"] = f"{argument.premise} — {argument.stance} — {argument.conclusion}"
        rows.append(row)
    return Browser(split, tuple(systems), tuple(rows), results.categories)
