"""Metrics of a run: metrics.jsonl, TensorBoard and, if the config asks for it, Weights & Biases."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxvalues.config import Config
from jaxvalues.config.reading import decode, entry, parse_json, read_file
from jaxvalues.config.writing import write_whole, writing
from jaxvalues.errors import ConfigError

_THEN = "; make space, then run the same command to resume"

WANDB_ID = "wandb_id.txt"
"""In a run folder: the id of its run at Weights & Biases, which the run continues whenever it starts again."""


def check_logging(config: Config) -> None:
    """Raise ConfigError where the config logs to Weights & Biases and its package is not installed."""
    if config.logging.wandb and importlib.util.find_spec("wandb") is None:
        raise ConfigError("logging.wandb needs the extra: pip install 'jaxvalues[wandb]'")


class MetricsWriter:
    """Writes metrics to metrics.jsonl, one JSON object per line, and the same numbers to TensorBoard.

    When a run resumes at `step`, lines of later steps are dropped, as the resumed run writes them again.
    """

    def __init__(self, folder: Path, config: Config, step: int = 0) -> None:
        self.path = folder / "metrics.jsonl"
        kept = [line for line, values in read_metrics(self.path) if values["step"] <= step] if step else []
        write_whole(self.path, "".join(line + "\n" for line in kept))
        self.board = self.wandb = None
        with writing(self.path, _THEN):
            self.file = self.path.open("ab", buffering=0)  # what could not be written must not be tried again
        if config.logging.tensorboard:
            from jaxvalues.training.event_file import EventFile

            board = folder / "tensorboard"
            with writing(board, _THEN):
                for events in board.glob("*.tfevents.*") if step == 0 else ():
                    events.unlink()  # of a run that was killed before its first checkpoint, and is written again
                self.board = EventFile(board, purge_step=step + 1 if step else None)
        if config.logging.wandb:
            check_logging(config)
            import wandb

            self.wandb = wandb.init(
                project=config.logging.wandb,
                name=folder.name,
                dir=str(folder),
                config=config.model_dump(mode="json"),
                id=_wandb_id(folder),
                resume="allow",
            )

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Record numbers of one kind (`train`, `held_out`) at one step."""
        line = (json.dumps({"step": step, "kind": kind, **values}) + "\n").encode()
        with writing(self.path, _THEN):
            while line:
                line = line[self.file.write(line) :]
        if self.board is not None:
            with writing(self.path.with_name("tensorboard"), _THEN):
                for name, value in values.items():
                    self.board.add_scalar(f"{kind}/{name}", value, step)
                self.board.flush()
        if self.wandb is not None:
            self.wandb.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        self.file.close()
        if self.board is not None:
            with suppress(OSError):  # which the line before it has said
                self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


class NoMetrics:
    """Writes nothing: for the processes other than the first."""

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def _wandb_id(folder: Path) -> str:
    """The id of a run at Weights & Biases: drawn when the run starts first, kept however often it starts again."""
    file = folder / WANDB_ID
    known = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    if not known:  # absent, or empty since a kill
        known = secrets.token_hex(4)
        write_whole(file, known + "\n")
    return known


def read_metrics(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line of a metrics.jsonl, and its numbers; without a last line that a kill left incomplete.

    Raises UserError, with file and line, for what a run did not write.
    """
    if not os.path.lexists(path):
        return
    complete, _, _ = read_file(path).rpartition(b"\n")
    for number, line in enumerate(decode(path, complete).splitlines(), start=1):
        where = f"{path}, line {number}"
        values = parse_json(line, where)
        entry(values, "step", int, where)
        yield line, values
