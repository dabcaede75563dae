"""The training loop: steps, evaluation on the held-out part, checkpoints, early stopping and interruption."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from rich.console import Console

from jaxvalues.config import Config
from jaxvalues.data.batches import inputs_shape
from jaxvalues.data.training_batches import TrainingBatches
from jaxvalues.errors import UserError
from jaxvalues.training.compilation import Executables
from jaxvalues.training.feed import made_ahead
from jaxvalues.training.memory import release_freed_memory
from jaxvalues.training.metrics import MetricsWriter, NoMetrics
from jaxvalues.training.optimizer import Hyperparameters
from jaxvalues.training.preemption import StopRequest
from jaxvalues.training.progress import ProgressLine
from jaxvalues.training.record import Series
from jaxvalues.training.sharding import place_batch
from jaxvalues.training.step import TrainState
from jaxvalues.training.together import StackedBatches


class Stopped(UserError):
    """The run was asked to stop (Ctrl-C, SIGTERM); its state is saved."""


class Paused(Stopped):
    """The run came to the step where it was to pause; its state is saved, and it can go on."""


class Stage(NamedTuple):
    """A part of the run with its own training step: steps `first` (included) to `end` (excluded)."""

    first: int
    end: int
    step: Executables
    hyper: Hyperparameters


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


Evaluate = Callable[[Any, StopRequest], Any]  # trainable -> held-out metrics for the recording; None when stopped


class Recording(Protocol):
    """What a loop tells, and asks, about one run (`Record`) or several that train together."""

    @property
    def evaluated_at(self) -> int:
        """The step of the last evaluation; -1 if there was none."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether training ends before its last step."""
        ...

    def trained(self, step: int, values: dict[str, np.ndarray], rates: dict[str, float] | None) -> None:
        """The metrics of a training step, which are logged, with `rates`, where these are given."""
        ...

    def evaluated(self, step: int, values: Any, state: TrainState) -> None:
        """What `evaluate` returned after a step."""
        ...

    def save(self, step: int, state: TrainState, stopping: bool) -> None:
        """A moment to save the state; where the loop is `stopping`, it must be saved."""
        ...

    def ended(self, step: int, state: TrainState) -> None:
        """The end of training."""
        ...


class Loop:
    """Trains to the end of the last stage. Only the last stage is evaluated.

    `restart` returns the state with a new optimizer state; every later stage starts with it. `evaluate` scores
    trainable parameters on the held-out part. `record` hears of every step and evaluation, and keeps the best. With
    `pause_at`, it raises Paused after the first evaluation at this step or later, unless training ends there.
    """

    def __init__(
        self,
        *,
        config: Config,
        batches: TrainingBatches | StackedBatches,
        stages: Sequence[Stage],
        restart: Callable[[TrainState], TrainState],
        evaluate: Evaluate,
        record: Recording,
        console: Console,
        pause_at: int | None = None,
    ) -> None:
        self.pause_at = pause_at
        self.config, self.batches, self.evaluate = config, batches, evaluate
        self.stages, self.restart = tuple(stages), restart
        self.record, self.console = record, console
        steps_per_epoch = batches.steps_per_epoch
        self.total = self.stages[-1].end
        self.evaluate_every = _steps(config.training.evaluate_every, steps_per_epoch)
        self.checkpoint_every = _steps(config.training.checkpoint_every, steps_per_epoch)

    def run(self, state: TrainState, frozen: Any, mesh: jax.sharding.Mesh) -> TrainState:
        """Train to the end. Raises Stopped when asked to stop, UserError when the loss is not finite.

        The order at every step is: evaluate if due, save if due, stop if asked to, train. An interrupted evaluation is
        not recorded; the resumed run repeats it.
        """
        step, saved = int(state.step), int(state.step)
        record, is_compiled = self.record, False
        meter = Meter(record, self.config.training.log_every, self.batches, [stage.step for stage in self.stages])
        stream = made_ahead(self.batches.starting_at(step), lambda one: (inputs_shape(one), place_batch(one, mesh)))
        with StopRequest() as stop, self._progress(step) as line, stream as batches:
            while True:
                last = step >= self.total
                due = step >= self.stages[-1].first and (last or step % self.evaluate_every == 0)
                if due and record.evaluated_at != step:
                    meter.flush()
                    started = time.perf_counter()
                    line.say("evaluating" if is_compiled else "compiling, then evaluating")
                    values, is_compiled = self.evaluate(state.trainable, stop), True
                    release_freed_memory()  # what one program leaves seldom fits another, and would add up
                    meter.pause(time.perf_counter() - started)
                    if values is not None:
                        record.evaluated(step, values, state)
                done = last or record.is_over
                stopping = bool(stop)  # asked once: a signal between two looks must not stop without saving
                pausing = self.pause_at is not None and step >= self.pause_at and record.evaluated_at == step
                pausing = pausing and not done
                if step > saved and (done or stopping or pausing or step % self.checkpoint_every == 0):
                    meter.flush()
                    record.save(step, state, stopping)
                    saved = step
                if stopping:
                    raise Stopped(
                        f"stopped at step {step} of {self.total}, state saved; run the same command to resume"
                    )
                if pausing:
                    raise Paused(f"paused at step {step} of {self.total}, state saved")
                if done:
                    break
                shape, batch = next(batches)
                stage = next(stage for stage in self.stages if step < stage.end)
                if step == stage.first > 0:
                    state = self.restart(state)
                if not stage.step.has(shape):
                    line.say("compiling")
                state, metrics = stage.step(shape, state, frozen, batch, stage.hyper)
                step += 1
                meter.add(step, metrics)
                line.advance(1, meter.shown)
        record.ended(step, state)
        return state

    def _progress(self, step: int) -> ProgressLine:
        return ProgressLine(self.console, "step", self.total, step)


class Meter:
    """Reads metrics one step behind the device, so that reading them never makes the device wait."""

    def __init__(
        self, record: Recording, every: int, batches: TrainingBatches | StackedBatches, steps: Sequence[Executables]
    ) -> None:
        self.record, self.every, self.batches, self.steps = record, every, batches, steps
        self.pending: tuple[int, dict[str, jax.Array]] | None = None
        self.shown = ""
        self._restart()

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Store the metrics of a step that has been dispatched, and read those of the step before."""
        self.flush()
        self.pending = (step, metrics)
        if self._compiling() != self.compiled:  # steps ran on while it compiled: time anew
            self._restart()
        self.arguments += self.batches.size.arguments_per_step

    def flush(self) -> None:
        """Read the pending metrics, and log them if due. Raises UserError if loss or gradient norm is not finite."""
        if self.pending is None:
            return
        (step, metrics), self.pending = self.pending, None
        values = {name: np.asarray(value) for name, value in metrics.items()}
        rate = self.arguments / max(time.perf_counter() - self.started - self.paused, 1e-9)
        due = step % self.every == 0 or step == 1
        epoch = round(step / self.batches.steps_per_epoch, 4)
        self.record.trained(step, values, {"epoch": epoch, "arguments_per_s": round(rate, 2)} if due else None)
        self.shown = f"loss {values['loss'].mean():.4f}  {rate:.1f} arguments/s"
        if due:
            self._restart()

    def pause(self, seconds: float) -> None:
        """Exclude these seconds from the training speed."""
        self.paused += seconds

    def _restart(self) -> None:
        self.started, self.arguments, self.paused = time.perf_counter(), 0.0, 0.0
        self.compiled = self._compiling()

    def _compiling(self) -> float:
        return sum(step.seconds for step in self.steps)


def _steps(every: int | str, steps_per_epoch: int) -> int:
    return steps_per_epoch if every == "epoch" else int(every)
