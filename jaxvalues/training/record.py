"""What one run writes and remembers while it trains: metrics, evaluations, its best step."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from jaxvalues.config import Config
from jaxvalues.config.reading import entry
from jaxvalues.errors import NotFiniteError, UserError, name_list
from jaxvalues.models.layers.layout import Grouping
from jaxvalues.training.checkpoints import Checkpoints
from jaxvalues.training.metrics import MetricsWriter, NoMetrics
from jaxvalues.training.processes import part
from jaxvalues.training.step import TrainState

SHORT = {"official_f1": "F1", "mean_category_f1": "mean F1", "majority_accuracy": "majority"}
"""What figures are called on the line of an evaluation, which fits 80 columns."""


@dataclass
class LoopState:
    """The loop's own state: evaluations and the best score. Checkpoints save it as the JSON item `memory`."""

    evaluated: int = -1  # step of the last evaluation
    best_score: float = -1.0
    best_step: int = -1
    stale: int = 0  # number of evaluations since the best one

    @classmethod
    def remembered(cls, content: dict[str, Any], folder: Path) -> LoopState:
        """The state that a checkpoint of the run folder holds. Raises UserError for what this version did not write."""
        wanted = {one.name: (int, float) if one.type == "float" else int for one in fields(cls)}
        if content.keys() != wanted.keys():
            raise UserError(
                f"{folder}: its checkpoint remembers {name_list(sorted(content))}, expected {name_list(wanted)}: it is "
                "of another version, so give another output=FOLDER"
            )
        return cls(**{name: entry(content, name, kind, f"{folder}: the checkpoint") for name, kind in wanted.items()})


class Series(NamedTuple):
    """The two series of checkpoints of a run."""

    resume: Checkpoints
    chosen: Checkpoints

    def close(self) -> None:
        """Finish writing both; not while an error is on its way that the other processes do not have.

        Orbax would wait for them, and they for this process.
        """
        error = sys.exception()
        if error is not None and not part(str(error) or type(error).__name__):
            return
        try:
            self.resume.close()
        finally:
            self.chosen.close()


class Notes:
    """The metrics and evaluations of one run. `chosen_by` is the metric by which the best step is chosen."""

    def __init__(
        self,
        config: Config,
        writer: MetricsWriter | NoMetrics,
        console: Console,
        memory: LoopState,
        chosen_by: str = "official_f1",
    ) -> None:
        self.config, self.chosen_by, self.writer, self.console = config, chosen_by, writer, console
        self.memory = memory

    def trained(self, step: int, values: dict[str, float], rates: dict[str, float] | None) -> None:
        """The metrics of a training step; they are logged, with `rates`, where these are given.

        Raises NotFiniteError if loss or gradient norm is not finite.
        """
        check_finite(f"the loss at step {step}", values["loss"], self.config)
        check_finite(f"the gradient norm at step {step}", values["grad_norm"], self.config)
        if rates is not None:
            self.writer.write(step, "train", {**values, **rates})

    def evaluated(self, step: int, values: dict[str, float], choose: Callable[[], None]) -> None:
        """The held-out metrics after a step; calls `choose` if it is the best one so far and is to be kept.

        Raises NotFiniteError if the loss is not finite.
        """
        check_finite(f"the held-out loss after step {step}", values["loss"], self.config)
        memory = self.memory
        better = values[self.chosen_by] > memory.best_score
        memory.evaluated = step
        memory.stale = 0 if better else memory.stale + 1
        if better:
            memory.best_score, memory.best_step = values[self.chosen_by], step
            if self.config.training.keep == "best":
                choose()
        self.writer.write(step, "held_out", values)
        shown = {name: value for name, value in values.items() if name not in ("loss", "threshold_logit")}
        figures = (f"{SHORT.get(name, name)} {_figure(value)}" for name, value in shown.items())
        loss = f"held-out loss {values['loss']:.4f}"
        said = "  ".join((f"step {step:>5}", loss, *figures, *["best"] * better))
        self.console.print(said, highlight=False)
        if memory.stale == self.config.training.warn_after:
            config = self.config
            keys = f"optimizer.learning_rate (it is {config.optimizer.learning_rate:g})"
            keys += " or tuning.init" * (config.tuning.method in ("prompt", "p_tuning"))
            self.console.print(
                f"no better held-out score in {memory.stale} evaluations, since step {memory.best_step}: if it never "
                f"rose, another {keys} may help",
                highlight=False,
            )

    def ended(self, step: int, choose: Callable[[], None]) -> None:
        """The end of training, after `step`; calls `choose` if the last step is to be kept."""
        if self.config.training.keep == "last":
            self.memory.best_step = step
            choose()

    @property
    def is_out_of_patience(self) -> bool:
        patience = self.config.training.patience
        return patience is not None and self.memory.stale >= patience


class Record:
    """What a loop tells of one run, and asks about it (see `Recording`).

    `series.chosen` keeps the step with the best score, or the last step if training.keep is `last`.
    """

    def __init__(self, notes: Notes, series: Series, segments: Grouping) -> None:
        self.notes, self.series, self.segments = notes, series, segments

    @property
    def evaluated_at(self) -> int:
        return self.notes.memory.evaluated

    @property
    def is_over(self) -> bool:
        return self.notes.is_out_of_patience

    def trained(self, step: int, values: dict[str, np.ndarray], rates: dict[str, float] | None) -> None:
        self.notes.trained(step, {name: float(value) for name, value in values.items()}, rates)

    def evaluated(self, step: int, values: dict[str, float], state: TrainState) -> None:
        self.notes.evaluated(step, values, lambda: self._choose(step, state))

    def ended(self, step: int, state: TrainState) -> None:
        self.notes.ended(step, lambda: self._choose(step, state))

    # One series is written at a time: Orbax mixes up the barriers of two saves when there are several processes.

    def _choose(self, step: int, state: TrainState) -> None:
        self.series.resume.wait()
        self.series.chosen.save(step, state.trainable, self.segments, asdict(self.notes.memory))

    def save(self, step: int, state: TrainState, stopping: bool) -> None:
        self.series.chosen.wait()  # and what the memory calls best must be on disk before the memory is
        self.series.resume.save(step, state, self.segments, asdict(self.notes.memory))


def check_finite(what: str, value: float, config: Config) -> None:
    """Raise NotFiniteError, with what may help, unless the value is finite."""
    if not math.isfinite(value):
        raise NotFiniteError(
            f"{what} is {value}: try a lower optimizer.learning_rate (it is {config.optimizer.learning_rate:g}), "
            "optimizer.clip_norm, or model.dtype=float32, with another output=FOLDER"
        )


def of_member(values: dict[str, np.ndarray], number: int) -> dict[str, float]:
    """The metrics of one of several runs, from arrays [R]."""
    return {name: float(array[number]) for name, array in values.items()}


def _figure(value: float) -> str:
    """Three decimals, or one significant digit where these would show 0; five characters."""
    return f"{value:.3f}" if value == 0 or value >= 0.0005 else f"{value:.0e}"
