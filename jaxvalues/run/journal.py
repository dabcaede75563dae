"""The answers of an untuned language model, kept on disk batch by batch.

Asking takes hours, so a run that was stopped, or killed, resumes where it was; runs that ask the same share the answers
(`runtime.features`).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from jaxvalues.config.reading import user_path
from jaxvalues.config.writing import writing
from jaxvalues.data.batches import Tokens
from jaxvalues.data.tokenizer_files import tokenizer_hash
from jaxvalues.run.kept import content_name
from jaxvalues.run.provenance import questions_hash
from jaxvalues.run.system import System
from jaxvalues.run.watch import Watch
from jaxvalues.training.processes import everyone, is_main

ANSWERS = "answers"
"""In a run folder: where answers are until the run is finished."""

_NAME = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{8}\.jsonl")

Row = int | tuple[int, ...]
"""What an answer belongs to: a row of tokens, or (row, sample)."""


class Journal:
    """The answers to `tokens` in `folder`, computed in this way: `known` has those that were there.

    Each process that writes has a file of its own, so no two ever write into one. Several processes of a run all know
    the same.
    """

    def __init__(self, folder: Path, system: System, tokens: Tokens, how: str, **decides: Any) -> None:
        form = system.config.formulation.model_dump(mode="json")
        decides |= {"how": how, "formulation": form, "constants": system.formulation.constants}
        decides |= {"tokenizer": tokenizer_hash(system.tokenizer), "questions": questions_hash(tokens)}
        name = content_name(system, tokens, **decides)
        self.name = name
        self.path = folder / f"{name}.{secrets.token_hex(4)}.jsonl"
        found: dict[Row, Any] = {}
        for file in sorted(folder.glob(f"{name}.*.jsonl")):
            found |= _read(file)
        everywhere = set.intersection(
            *({_row(row) for row in rows} for rows in everyone("the answers that are kept", lambda: [*found]))
        )
        self.known = {row: found[row] for row in found if row in everywhere}

    def has(self, rows: Sequence[Row]) -> bool:
        """Whether all of these rows are known."""
        return all(row in self.known for row in rows)

    def of(self, rows: Sequence[Row]) -> np.ndarray:
        """The known answers of a batch, as an array."""
        return np.array([self.known[row] for row in rows])

    def add(self, rows: Sequence[Row], answers: Sequence[Any]) -> None:
        """Keep the answers of a batch, as JSON has them. Raises UserError where they cannot be written."""
        if not is_main():
            return
        with writing(self.path, "; the same command resumes from here"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"rows": list(rows), "answers": list(answers)}) + "\n")


def journal(system: System, tokens: Tokens, how: str, watch: Watch, **decides: Any) -> Journal | None:
    """The journal of the answers of an untuned network to `tokens`, computed as `how` says.

    Its file is in `runtime.features`, or else in the folder of `watch`, which notes its name. None, and nothing is
    kept: where that folder is None, anything trains, or the weights have no hash (`System.identity`). `decides` are
    further values that the answers depend on.
    """
    shared = system.config.runtime.features
    place = watch.folder if shared is None else user_path(shared)
    if watch.folder is None or system.network.trains or system.identity is None:
        return None
    kept = Journal(place, system, tokens, how, **decides)
    if watch.journals is not None:
        watch.journals.add(kept.name)
    return kept


def forget_answers(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove the answers in `folder`, of what is finished, and the folder if nothing else is in it.

    `names` are those of the journals that are meant (None: all): others may be of a prediction that was stopped.
    """
    if is_main() and folder.is_dir():
        for file in folder.iterdir():
            if _NAME.fullmatch(file.name) and (names is None or file.name.partition(".")[0] in names):
                file.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()


def _read(path: Path) -> dict[Row, Any]:
    """The answers of a file, by row; without the line that a kill cut."""
    answers: dict[Row, Any] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):  # being removed, or damaged
        return answers
    for line in lines:
        try:
            entry = json.loads(line)
            answers |= {_row(row): one for row, one in zip(entry["rows"], entry["answers"], strict=True)}
        except (ValueError, TypeError, KeyError):
            continue
    return answers


def _row(row: Any) -> Row:
    return tuple(row) if isinstance(row, list) else row
