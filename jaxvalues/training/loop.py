"""The training loop: steps, evaluation on the held-out part, checkpoints, early stopping and interruption."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console

from jaxvalues.config import Config
from jaxvalues.config.reading import entry
from jaxvalues.data.batches import inputs_shape
from jaxvalues.data.training_batches import TrainingBatches
from jaxvalues.errors import UserError, name_list
from jaxvalues.models.layers.layout import Grouping
from jaxvalues.training.checkpoints import Checkpoints
from jaxvalues.training.compilation import Executables
from jaxvalues.training.metrics import MetricsWriter, NoMetrics
from jaxvalues.training.optimizer import Hyperparameters
from jaxvalues.training.preemption import StopRequest
from jaxvalues.training.processes import part
from jaxvalues.training.progress import ProgressLine
from jaxvalues.training.sharding import place_batch
from jaxvalues.training.step import TrainState


class Stopped(UserError):
    """The run was asked to stop (Ctrl-C, SIGTERM); its state is saved."""


class Paused(Stopped):
    """The run came to the step where it was to pause; its state is saved, and it can go on."""


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


class Stage(NamedTuple):
    """A part of the run with its own training step: steps `first` (included) to `end` (excluded)."""

    first: int
    end: int
    step: Executables
    hyper: Hyperparameters


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


@contextmanager
def closing_after(writer: MetricsWriter | NoMetrics, series: Series) -> Iterator[None]:
    """A block of training, after which both are closed, and all is on disk.

    Where the block fails, what fails then does not hide why; a run that was asked to stop has its state on disk, or the
    error says why not.
    """
    try:
        yield
    except Stopped:
        _close(writer, series)
        raise
    except BaseException:
        with suppress(Exception):
            _close(writer, series)
        raise
    _close(writer, series)


def _close(writer: MetricsWriter | NoMetrics, series: Series) -> None:
    try:
        writer.close()
    finally:
        series.close()


SHORT = {"official_f1": "F1", "mean_category_f1": "mean F1", "majority_accuracy": "majority"}
"""What figures are called on the line of an evaluation, which fits 80 columns."""

Evaluate = Callable[[Any, StopRequest], dict[str, float] | None]  # trainable -> held-out metrics; None when stopped


class Loop:
    """Trains to the end of the last stage. Only the last stage is evaluated.

    `restart` returns the state with a new optimizer state; every later stage starts with it. `evaluate` scores
    trainable parameters on the held-out part. `series.chosen` keeps the step with the best score, the metric
    `chosen_by`, or the last step if training.keep is `last`. With `pause_at`, it raises Paused after the first
    evaluation at this step or later, unless training ends there.
    """

    def __init__(
        self,
        *,
        config: Config,
        batches: TrainingBatches,
        stages: Sequence[Stage],
        restart: Callable[[TrainState], TrainState],
        evaluate: Evaluate,
        series: Series,
        segments: Grouping,
        writer: MetricsWriter | NoMetrics,
        console: Console,
        chosen_by: str = "official_f1",
        pause_at: int | None = None,
    ) -> None:
        self.pause_at = pause_at
        self.config, self.batches, self.evaluate = config, batches, evaluate
        self.chosen_by = chosen_by
        self.stages, self.restart = tuple(stages), restart
        self.series, self.segments, self.writer, self.console = series, segments, writer, console
        steps_per_epoch = batches.steps_per_epoch
        self.total = self.stages[-1].end
        self.evaluate_every = _steps(config.training.evaluate_every, steps_per_epoch)
        self.checkpoint_every = _steps(config.training.checkpoint_every, steps_per_epoch)

    def run(self, state: TrainState, frozen: Any, memory: LoopState, mesh: jax.sharding.Mesh) -> LoopState:
        """Train to the end. Raises Stopped when asked to stop, UserError when the loss is not finite.

        The order at every step is: evaluate if due, save if due, stop if asked to, train. An interrupted evaluation is
        not recorded; the resumed run repeats it.
        """
        step, saved = int(state.step), int(state.step)
        stream, is_compiled = self.batches.starting_at(step), False
        meter = Meter(self.writer, self.config.training.log_every, self.batches, [stage.step for stage in self.stages])
        with StopRequest() as stop, self._progress(step) as line:
            while True:
                last = step >= self.total
                due = step >= self.stages[-1].first and (last or step % self.evaluate_every == 0)
                if due and memory.evaluated != step:
                    meter.flush(self.config)
                    started = time.perf_counter()
                    line.say("evaluating" if is_compiled else "compiling, then evaluating")
                    values, is_compiled = self.evaluate(state.trainable, stop), True
                    meter.pause(time.perf_counter() - started)
                    if values is not None:
                        _check_finite(f"the held-out loss after step {step}", values["loss"], self.config)
                        self._remember(memory, step, values, state)
                done = last or self._out_of_patience(memory)
                stopping = bool(stop)  # asked once: a signal between two looks must not stop without saving
                pausing = self.pause_at is not None and step >= self.pause_at and memory.evaluated == step and not done
                if step > saved and (done or stopping or pausing or step % self.checkpoint_every == 0):
                    meter.flush(self.config)
                    self._save(step, state, memory)
                    saved = step
                if stopping:
                    raise Stopped(
                        f"stopped at step {step} of {self.total}, state saved; run the same command to resume"
                    )
                if pausing:
                    raise Paused(f"paused at step {step} of {self.total}, state saved")
                if done:
                    break
                batch = next(stream)
                stage = next(stage for stage in self.stages if step < stage.end)
                if step == stage.first > 0:
                    state = self.restart(state)
                if not stage.step.has(inputs_shape(batch)):
                    line.say("compiling")
                placed = place_batch(batch, mesh)
                state, metrics = stage.step(inputs_shape(batch), state, frozen, placed, stage.hyper)
                step += 1
                meter.add(step, metrics, self.config)
                line.advance(1, meter.shown)
        if self.config.training.keep == "last":
            memory.best_step = step
            self._choose(step, state, memory)
        return memory

    def _remember(self, memory: LoopState, step: int, values: dict[str, float], state: TrainState) -> None:
        better = values[self.chosen_by] > memory.best_score
        memory.evaluated = step
        memory.stale = 0 if better else memory.stale + 1
        if better:
            memory.best_score, memory.best_step = values[self.chosen_by], step
            if self.config.training.keep == "best":
                self._choose(step, state, memory)
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

    # One series is written at a time: Orbax mixes up the barriers of two saves when there are several processes.

    def _choose(self, step: int, state: TrainState, memory: LoopState) -> None:
        self.series.resume.wait()
        self.series.chosen.save(step, state.trainable, self.segments, asdict(memory))

    def _save(self, step: int, state: TrainState, memory: LoopState) -> None:
        self.series.chosen.wait()  # and what the memory calls best must be on disk before the memory is
        self.series.resume.save(step, state, self.segments, asdict(memory))

    def _out_of_patience(self, memory: LoopState) -> bool:
        patience = self.config.training.patience
        return patience is not None and memory.stale >= patience

    def _progress(self, step: int) -> ProgressLine:
        return ProgressLine(self.console, "step", self.total, step)


class Meter:
    """Reads metrics one step behind the device, so that reading them never makes the device wait."""

    def __init__(
        self, writer: MetricsWriter | NoMetrics, every: int, batches: TrainingBatches, steps: Sequence[Executables]
    ) -> None:
        self.writer, self.every, self.batches, self.steps = writer, every, batches, steps
        self.pending: tuple[int, dict[str, jax.Array]] | None = None
        self.shown = ""
        self._restart()

    def add(self, step: int, metrics: dict[str, jax.Array], config: Config) -> None:
        """Store the metrics of a step that has been dispatched, and read those of the step before."""
        self.flush(config)
        self.pending = (step, metrics)
        if self._compiling() != self.compiled:  # steps ran on while it compiled: time anew
            self._restart()
        self.arguments += self.batches.size.arguments_per_step

    def flush(self, config: Config) -> None:
        """Read the pending metrics and log them if due. Raises UserError if loss or gradient norm is not finite."""
        if self.pending is None:
            return
        (step, metrics), self.pending = self.pending, None
        values = {name: float(value) for name, value in metrics.items()}
        _check_finite(f"the loss at step {step}", values["loss"], config)
        _check_finite(f"the gradient norm at step {step}", values["grad_norm"], config)
        rate = self.arguments / max(time.perf_counter() - self.started - self.paused, 1e-9)
        self.shown = f"loss {values['loss']:.4f}  {rate:.1f} arguments/s"
        if step % self.every == 0 or step == 1:
            epoch = step / self.batches.steps_per_epoch
            self.writer.write(step, "train", {**values, "epoch": round(epoch, 4), "arguments_per_s": round(rate, 2)})
            self._restart()

    def pause(self, seconds: float) -> None:
        """Exclude these seconds from the training speed."""
        self.paused += seconds

    def _restart(self) -> None:
        self.started, self.arguments, self.paused = time.perf_counter(), 0.0, 0.0
        self.compiled = self._compiling()

    def _compiling(self) -> float:
        return sum(step.seconds for step in self.steps)


def _check_finite(what: str, value: float, config: Config) -> None:
    if not math.isfinite(value):
        raise UserError(
            f"{what} is {value}: try a lower optimizer.learning_rate (it is {config.optimizer.learning_rate:g}), "
            "optimizer.clip_norm, or model.dtype=float32, with another output=FOLDER"
        )


def _figure(value: float) -> str:
    """Three decimals, or one significant digit where these would show 0; five characters."""
    return f"{value:.3f}" if value == 0 or value >= 0.0005 else f"{value:.0e}"


def _steps(every: int | str, steps_per_epoch: int) -> int:
    return steps_per_epoch if every == "epoch" else int(every)
