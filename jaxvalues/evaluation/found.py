"""What a run found in a user's own arguments: a table or JSON to go on with, and a few lines for the screen.

- wide: the user's columns, what was found, and a column P(label) for each label.
- long: the user's columns once for each label, with its probability, its threshold and whether it was found.
- json: the same, argument by argument.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxvalues.config.writing import write_whole
from jaxvalues.data.task import Task
from jaxvalues.data.tsv import ID
from jaxvalues.data.user_file import UserFile
from jaxvalues.evaluation.decision import Decision, sigmoid

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("wide", "long", "json")
_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Found:
    """Logits [n, C] of the arguments of a user's file, and how they are decided."""

    file: UserFile
    task: Task
    logits: np.ndarray
    decision: Decision

    def path(self, folder: Path, format: str) -> Path:
        """Where `write` puts it."""
        suffix = "json" if format == "json" else "tsv" if self.file.delimiter == "\t" else "csv"
        return folder / f"{self.task.name}-{self.file.path.stem}.{suffix}"

    def write(self, folder: Path, format: str) -> None:
        """Write it to `folder` in one of FORMATS. A table has the delimiter of the user's own, and its mark."""
        path = self.path(folder, format)
        text = {"wide": self._wide, "long": self._long, "json": self._json}[format]()
        encoding = "utf-8-sig" if self.file.has_mark and format != "json" else "utf-8"
        write_whole(path, text.encode(encoding))

    def render(self, console: Console) -> None:
        """Print what was found in the first arguments, the most probable first."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        ids = [_printable(argument.id)[:24] for argument in self.file.arguments[:_SHOWN]]
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        room = max(20, console.width - max(map(len, ids)) - 2)
        rows = zip(ids, self.file.arguments, self.probabilities, self._decisions, strict=False)
        for id, argument, row, decided in rows:
            premise = Text(_printable(argument.premise), style="dim", no_wrap=True)
            premise.truncate(room, overflow="ellipsis")
            table.add_row(Text(id), Text("\n").join([premise, Text(self._in_words(row, decided))]))
        console.print(table)
        if (more := len(self.file.arguments) - _SHOWN) > 0:
            console.print(f"... and {more:,} more arguments", style="dim", highlight=False)

    @property
    def _decisions(self) -> np.ndarray:
        return self.decision(self.logits)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Probabilities [n, C]."""
        return sigmoid(self.logits)

    def _names(self, decided: np.ndarray) -> list[str]:
        """The labels found; of a task with one label, what it is otherwise too."""
        names = [label for label, there in zip(self.task.labels, decided, strict=True) if there]
        return names or ([] if self.task.opposite is None else [self.task.opposite])

    def _in_words(self, row: np.ndarray, decided: np.ndarray) -> str:
        if self.task.opposite is not None:
            (name,) = self._names(decided)
            return f"{name} ({_figure(row[0] if decided[0] else 1 - row[0])})"
        order = np.argsort(-row, kind="stable")
        if not decided.any():
            best = order[0]
            return f"none; the most probable is {self.task.labels[best]} ({_figure(row[best])})"
        return ", ".join(f"{self.task.labels[i]} ({_figure(row[i])})" for i in order if decided[i])

    @property
    def _title(self) -> str:
        return f"{self.task.name.capitalize()} found"

    def _columns(self, names: tuple[str, ...]) -> tuple[list[str], Iterator[list[str]]]:
        """The header with `names` behind the user's columns, and the user's rows; with IDs where there are none.

        The columns of an earlier prediction, which stand behind the user's too, are replaced. One of the user's that
        has the name of one of ours is kept, and ours is called "... (found)".
        """
        kept = list(self.file.header)

        def named(beside: list[str]) -> list[str]:
            return [f"{name} (found)" if name in beside else name for name in names]

        if kept[-len(names) :] == named(kept[: -len(names)]):
            kept = kept[: -len(names)]
        number = "id" in self.file.absent
        return [ID] * number + kept + named(kept), (
            [*[argument.id] * number, *cells[: len(kept)]]
            for argument, cells in zip(self.file.arguments, self.file.rows, strict=True)
        )

    def _wide(self) -> str:
        ours = (self._title, *(f"P({label})" for label in self.task.labels))
        header, rows = self._columns(ours)
        values = zip(rows, self.probabilities.tolist(), self._decisions, strict=True)
        return self._table(
            header,
            ([*cells, "; ".join(self._names(there)), *(f"{p:.6f}" for p in row)] for cells, row, there in values),
        )

    def _long(self) -> str:
        ours = ("Label", "Probability", "Threshold", "Found")
        header, rows = self._columns(ours)
        thresholds = self.decision.probabilities.tolist()
        values = zip(rows, self.probabilities.tolist(), self._decisions.tolist(), strict=True)
        return self._table(
            header,
            (
                [*cells, label, f"{p:.6f}", f"{threshold:g}", there]
                for cells, row, decided in values
                for label, p, threshold, there in zip(self.task.labels, row, thresholds, decided, strict=True)
            ),
        )

    def _json(self) -> str:
        thresholds = self.decision.probabilities.tolist()
        values = zip(self.file.arguments, self.file.rows, self.probabilities.tolist(), self._decisions, strict=True)
        content: dict[str, Any] = {
            "decision": self.decision.how,
            "thresholds": dict(zip(self.task.labels, thresholds, strict=True)),
            "threshold_logits": dict(zip(self.task.labels, self.decision.thresholds.tolist(), strict=True)),
            "assumed": list(self.file.notes),
            "arguments": [
                {
                    "id": argument.id,
                    "conclusion": argument.conclusion,
                    "stance": argument.stance,
                    "premise": argument.premise,
                    "columns": dict(zip(self.file.header, cells, strict=True)),
                    "found": self._names(decided),
                    "probabilities": dict(zip(self.task.labels, (round(p, 6) for p in row), strict=True)),
                }
                for argument, cells, row, decided in values
            ],
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def _table(self, header: list[str], rows: Iterator[list[Any]]) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=self.file.delimiter, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        return text.getvalue()


def _printable(text: str) -> str:
    """A text on one line, without what would move the cursor or change colours."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def _figure(probability: float) -> str:
    return f"{probability:.2f}"
