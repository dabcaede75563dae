"""Metrics of a run: metrics.jsonl, TensorBoard and, if the config asks for it, Weights & Biases."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
from pathlib import Path
from typing import Any

from jaxvalues.config import Config
from jaxvalues.errors import ConfigError

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
        kept = [line for line in _complete_lines(self.path) if json.loads(line)["step"] <= step] if step else []
        shortened = self.path.with_name(self.path.name + ".tmp")
        shortened.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(shortened, self.path)
        self.file = self.path.open("a", encoding="utf-8")
        self.board = self.wandb = None
        if config.logging.tensorboard:
            from tensorboardX import SummaryWriter

            board = folder / "tensorboard"
            for events in board.glob("events.out.tfevents.*") if step == 0 else ():
                events.unlink()  # of a run that was killed before its first checkpoint, and is written again
            self.board = SummaryWriter(str(board), purge_step=step + 1 if step else None)
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
        self.file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self.file.flush()
        for name, value in values.items():
            if self.board is not None:
                self.board.add_scalar(f"{kind}/{name}", value, step)
        if self.wandb is not None:
            self.wandb.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        self.file.close()
        if self.board is not None:
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
        file.write_text(known + "\n", encoding="utf-8")
    return known


def _complete_lines(path: Path) -> list[str]:
    """The lines of a JSON-lines file, without a last line that a kill left incomplete."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()
