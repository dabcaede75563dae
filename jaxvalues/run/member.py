"""One of several runs that train together: its folder, what it says, its best parameters, and how it failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import jax.numpy as jnp

from jaxvalues.config import Config
from jaxvalues.data.batches import Tokens
from jaxvalues.data.task import TASKS
from jaxvalues.errors import UserError
from jaxvalues.evaluation.measures import TaskScores, measure_of
from jaxvalues.run.console import RunConsole
from jaxvalues.run.embeddings import keep_embeddings
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.outcome import finish, scored_by
from jaxvalues.run.prediction import Predicted
from jaxvalues.run.system import System, Weights
from jaxvalues.run.warm_start import WarmStart
from jaxvalues.training.loop import Stopped
from jaxvalues.training.metrics import MetricsWriter
from jaxvalues.training.record import LoopState, Notes
from jaxvalues.training.step import TrainState

if TYPE_CHECKING:
    from jaxvalues.run.inputs import Inputs

T = TypeVar("T")


class Member:
    """A run among others. `error` is the exception by which it failed; then it is left out, and the others go on."""

    def __init__(self, config: Config, console: RunConsole) -> None:
        self.config, self.console = config, console
        self.folder = RunFolder(config.folder, TASKS[config.data.task])
        self.error: Exception | None = None
        self.scores: dict[str, TaskScores] | None = None
        self.notes: Notes | None = None
        self.best: Any = None  # the parameters that predict, as far as is known
        self.last: TrainState | None = None  # where it ended before the others, out of patience

    @property
    def trains(self) -> bool:
        """Whether it goes on training."""
        return self.error is None and self.scores is None and self.last is None

    def alone(self, do: Callable[..., T], *args: Any) -> T | None:
        """Do something for this run, unless it failed or is finished; None where it fails, which others do not see."""
        if self.error is not None or self.scores is not None:
            return None
        try:
            return do(*args)
        except Stopped:
            raise
        except Exception as error:  # the other runs go on, whatever it was
            self.error = error
            return None

    def open(self, inputs: Inputs, warm_start: WarmStart) -> None:
        """Make or find its folder. A finished run has its scores there."""
        self.folder = RunFolder.open(self.config, inputs.record(self.config, warm_start))
        if self.folder.is_finished:
            self.scores = self.folder.scores()

    def start(
        self, inputs: Inputs, weights: Weights, held_out: Tokens, closing: ExitStack, resumed: int | None
    ) -> None:
        """Say what is trained, and open its metrics, which `closing` closes.

        `resumed` is the step where it goes on, None for a new run.
        """
        system = inputs.system.of_member(self.config)
        self.console.start(inputs.base, system, weights, inputs.batches, inputs.parts)
        self.console.print("trained together with others, which share what is frozen")
        writer = MetricsWriter(self.folder.path, self.config, resumed or 0)
        closing.callback(writer.close)
        chosen_by = measure_of(self.folder.task).selection_metric
        self.notes = Notes(self.config, writer, self.console.console, LoopState(), chosen_by)
        if resumed is None:
            keep_embeddings(self.folder, "before", system, weights, held_out)

    def restore(self, system: System) -> TrainState:
        """The state in its folder, with the best parameters so far."""
        with closing(self.folder.resume(read_only=True)) as resume:
            state, remembered = resume.restore(system.abstract_state(), system.segments, system.mesh)
        self.notes.memory = memory = LoopState.remembered(remembered, self.folder.path)
        if self.config.training.keep == "best" and memory.best_step >= 0:
            self.best, _ = self.folder.restore_chosen(system)
        if self.notes.is_out_of_patience:
            self.last = state
            if self.config.training.keep == "last":
                self.best = state.trainable
        self.console.print(f"resuming at step {int(state.step)}")
        return state

    def evaluated(self, step: int, values: dict[str, float], state: Callable[[], TrainState]) -> None:
        """The held-out metrics after a step, and its own `state` there; it ends where it is out of patience."""
        self.notes.evaluated(step, values, lambda: self._keep(state))
        if self.notes.is_out_of_patience:
            self.ended(step, state)
            self.last = state()._replace(step=jnp.int32(step))

    def ended(self, step: int, state: Callable[[], TrainState]) -> None:
        """The end of its training."""
        self.notes.ended(step, lambda: self._keep(state))

    def _keep(self, state: Callable[[], TrainState]) -> None:
        self.best = state().trainable

    def save(self, step: int, state: Callable[[], TrainState], system: System) -> None:
        """Write what it needs to resume, alone or with the others."""
        memory = asdict(self.notes.memory)
        self._save_chosen(system)
        here = state() if self.last is None else self.last
        with closing(self.folder.resume()) as resume:
            resume.save(step if self.last is None else int(self.last.step), here, system.segments, memory)

    def _save_chosen(self, system: System) -> None:
        memory = self.notes.memory
        if self.best is not None:
            with closing(self.folder.chosen()) as chosen:
                chosen.save(memory.best_step, self.best, system.segments, asdict(memory))

    def finish(self, inputs: Inputs, frozen: Any, held_out: Tokens, predicted: Sequence[Predicted]) -> None:
        """Write the parameters that predict, tune the decision on the first of `predicted`, and score the others."""
        system, memory = inputs.system.of_member(self.config), self.notes.memory
        if self.best is None:
            raise UserError("no evaluation had a score, so there are no parameters to predict with")
        self._save_chosen(system)
        keep_embeddings(self.folder, "after", system, Weights(frozen, self.best), held_out)
        outcome = finish(
            self.folder,
            self.config.decision,
            predicted[0],
            predicted[1:],
            step=memory.best_step,
            how="{}" + scored_by(self.config),
        )
        self.console.end(system, memory.best_step, outcome.decision, len(inputs.parts.training))
        self.console.scores(outcome.reported, inputs.base.is_random, self.folder.path)
        self.scores = outcome.scores
