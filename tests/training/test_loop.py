"""The loop's order of things, with a model of one number and scripted evaluations."""

from __future__ import annotations

import io
import itertools
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxvalues.config import parse_config
from jaxvalues.data.batches import Tokens
from jaxvalues.data.training_batches import TrainingBatches
from jaxvalues.errors import UserError
from jaxvalues.training import loop as loop_module
from jaxvalues.training.checkpoints import Checkpoints
from jaxvalues.training.loop import Loop, Paused, Stage, Stopped
from jaxvalues.training.preemption import StopRequest
from jaxvalues.training.record import LoopState, Notes, Record, Series
from jaxvalues.training.sharding import make_mesh
from jaxvalues.training.step import TrainState

EPOCH = 4  # steps


class Writer:
    """A metrics writer that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        self.lines.append((step, kind))

    def steps(self, kind: str) -> list[int]:
        return [step for step, one in self.lines if one == kind]


class Step:
    """Counts up; its loss and gradient norm can be scripted."""

    seconds = 0.0

    def __init__(self, losses: dict[int, float], norms: dict[int, float]) -> None:
        self.losses, self.norms, self.done = losses, norms, []

    def has(self, shape: Any) -> bool:
        return True

    def __call__(self, shape: Any, state: TrainState, frozen: Any, batch: Any, hyper: Any) -> tuple[TrainState, Any]:
        step = int(state.step) + 1
        self.done.append(step)
        weights = {"w": state.trainable["w"] + 1}
        metrics = {"loss": jnp.float32(self.losses.get(step, 1.0)), "grad_norm": jnp.float32(self.norms.get(step, 1.0))}
        return TrainState(state.step + 1, weights, state.optimizer), metrics


class Rig:
    """A loop over a run folder; `go` trains from what the folder holds."""

    def __init__(self, folder: Path, **training: Any) -> None:
        model = {"config": {"model_type": "roberta"}, "train_tokenizer": {}}
        settings = {"epochs": 2, "batch_size": 8, "log_every": 1, **training}
        self.config = parse_config({"model": model, "training": settings}).explicit()
        self.folder, self.mesh = folder, make_mesh(self.config.mesh)
        rows = tuple(np.full(3, number, np.int32) for number in range(EPOCH * 8))
        self.batches = TrainingBatches(Tokens(rows, np.zeros((len(rows), 20), np.int8)), (8,), 8, 0, 0)
        self.notes, self.pretraining, self.restarts = Writer(), False, []
        self.screen = Console(file=io.StringIO(), width=300)

    def go(
        self,
        scores: dict[int, float] | None = None,
        losses: dict[int, float] | None = None,
        norms: dict[int, float] | None = None,
        held_out_losses: dict[int, float] | None = None,
        during: Callable[[int, StopRequest], bool] = lambda step, stop: False,
        *,
        pause_at: int | None = None,
    ) -> LoopState:
        """`scores` are held-out F1 by step; `during` looks on at evaluations and says whether they are cut short."""

        def evaluate(trainable: Any, stop: StopRequest) -> dict[str, float] | None:
            step = int(trainable["w"])
            if during(step, stop):
                return None
            loss = (held_out_losses or {}).get(step, 1.0)
            return {"loss": loss, "official_f1": (scores or {}).get(step, 0.0)}

        series = Series(Checkpoints(self.folder / "resume"), Checkpoints(self.folder / "chosen"))
        state, memory = TrainState(jnp.int32(0), {"w": jnp.zeros(())}, {"m": jnp.zeros(())}), LoopState()
        if series.resume.latest() is not None:
            state, remembered = series.resume.restore(state, (), self.mesh)
            memory = LoopState(**remembered)
        self.step = Step(losses or {}, norms or {})
        loop = Loop(
            config=self.config, batches=self.batches, stages=self.stages(self.step), restart=self.restart,
            evaluate=evaluate, record=Record(Notes(self.config, self.notes, self.screen, memory), series, ()),
            console=self.screen, pause_at=pause_at,
        )  # fmt: skip
        try:
            loop.run(state, {}, self.mesh)
            return memory
        finally:
            series.resume.close()
            series.chosen.close()

    def stages(self, step: Step) -> list[Stage]:
        """One stage, or two of an epoch each after `pretraining`."""
        ends = [EPOCH, 2 * EPOCH] if self.pretraining else [self.config.training.epochs * EPOCH]
        return [Stage(first, end, step, None) for first, end in itertools.pairwise([0, *ends])]

    def restart(self, state: TrainState) -> TrainState:
        self.restarts.append(int(state.step))
        return state

    def saved(self, name: str) -> tuple[int | None, float | None]:
        """Step and weight of the newest checkpoint of a series."""
        checkpoints = Checkpoints(self.folder / name)
        step = checkpoints.latest()
        if step is None:
            return None, None
        weights = {"w": jnp.zeros(())}
        target = weights if name == "chosen" else TrainState(jnp.int32(0), weights, {"m": jnp.zeros(())})
        tree, _ = checkpoints.restore(target, (), self.mesh)
        return step, float(jax.tree.leaves(tree["w"] if name == "chosen" else tree.trainable)[0])


def test_a_stage_before_is_not_evaluated_and_the_optimizer_starts_anew_after_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path, evaluate_every=2, checkpoint_every=2)
    rig.pretraining = True
    with pytest.raises(UserError):
        rig.go(losses={5: math.nan})
    assert rig.restarts == [EPOCH]
    assert rig.notes.steps("held_out") == [4]
    memory = rig.go(scores={6: 0.5})  # saved at step 4, before the restart: it comes again
    assert rig.restarts == [EPOCH, EPOCH]
    assert memory.best_step == 6
    assert rig.step.done == [5, 6, 7, 8]


def test_the_best_step_is_chosen(tmp_path: Path) -> None:
    rig = Rig(tmp_path, evaluate_every=2)
    memory = rig.go(scores={2: 0.3, 4: 0.5, 6: 0.5, 8: 0.4})
    assert rig.notes.steps("held_out") == [0, 2, 4, 6, 8]
    assert rig.notes.steps("train") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (memory.best_step, memory.best_score, memory.stale) == (4, 0.5, 2)
    assert rig.saved("chosen") == (4, 4.0)
    assert rig.saved("resume") == (8, 8.0)


def test_the_last_step_is_chosen_when_asked_for_and_always_evaluated(tmp_path: Path) -> None:
    rig = Rig(tmp_path, keep="last", evaluate_every=3)
    assert rig.go(scores={3: 1.0}).best_step == 8
    assert rig.notes.steps("held_out") == [0, 3, 6, 8]
    assert rig.saved("chosen") == (8, 8.0)


def test_patience(tmp_path: Path) -> None:
    rig = Rig(tmp_path, epochs=5, patience=2, evaluate_every=2)
    assert rig.go(scores={2: 0.2, 4: 0.1, 6: 0.2}).best_step == 2
    assert rig.step.done[-1] == 6
    assert rig.saved("resume")[0] == 6
    rig.go()
    assert rig.step.done == []  # what was over stays over


@pytest.mark.parametrize(("warn_after", "warned"), [(2, [4, 8]), (3, [5]), (None, []), (9, [])])
def test_a_score_that_stands_still_is_said_once(warn_after: int | None, warned: list[int], tmp_path: Path) -> None:
    """At the steps `warned`; again when it rose in between."""
    rig = Rig(tmp_path, evaluate_every=1, warn_after=warn_after)
    rig.go(scores={2: 0.5, 6: 0.6})
    lines = rig.screen.file.getvalue().splitlines()
    said = [number for number, line in enumerate(lines) if "no better held-out score" in line]
    assert [int(lines[number - 1].split()[1]) for number in said] == warned
    for number, step in zip(said, warned, strict=True):
        best = 2 if step < 6 else 6
        assert f"in {warn_after} evaluations, since step {best}: if it never rose" in lines[number]
        assert "optimizer.learning_rate (it is 2e-05)" in lines[number]


@pytest.mark.parametrize("at", [1, 4, 6])
def test_a_stopped_run_goes_on_and_remembers_the_best(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(self: Any, step: int, *rest: Any, original: Any = loop_module.Meter.add) -> None:
        original(self, step, *rest)
        if step == at:
            signal.raise_signal(signal.SIGTERM)

    rig = Rig(tmp_path, evaluate_every=2, checkpoint_every=100)
    scores = {2: 0.9, 4: 0.5, 8: 0.7}
    with monkeypatch.context() as patch:
        patch.setattr(loop_module.Meter, "add", add)
        with pytest.raises(Stopped, match=f"stopped at step {at} of 8, state saved; run the same command to resume"):
            rig.go(scores)
    assert rig.saved("resume") == (at, float(at))
    assert rig.go(scores).best_step == 2
    assert rig.step.done == list(range(at + 1, 9))
    assert sorted(set(rig.notes.steps("held_out"))) == [0, 2, 4, 6, 8]
    assert rig.saved("chosen") == (2, 2.0)


def test_a_run_pauses_after_an_evaluation_and_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    rig = Rig(tmp_path, evaluate_every=2, checkpoint_every=100)
    scores = {2: 0.3, 4: 0.9, 8: 0.7}
    for _ in range(2):  # once it is there, it stays there
        with pytest.raises(Paused, match="paused at step 4 of 8, state saved"):
            rig.go(scores, pause_at=3)
        assert rig.saved("resume") == (4, 4.0)
        assert rig.saved("chosen") == (4, 4.0)
    assert rig.step.done == []
    assert rig.go(scores, pause_at=8).best_step == 4
    assert rig.step.done == [5, 6, 7, 8]
    assert rig.notes.steps("held_out") == [0, 2, 4, 6, 8]


def test_an_evaluation_cut_short_comes_again(tmp_path: Path) -> None:
    def cut(step: int, stop: StopRequest) -> bool:
        if step == 4:
            signal.raise_signal(signal.SIGINT)
        return bool(stop)

    rig = Rig(tmp_path)
    with pytest.raises(Stopped, match="step 4"):
        rig.go(during=cut)
    assert rig.notes.steps("held_out") == [0]
    rig.go({4: 1.0})
    assert rig.notes.steps("held_out") == [0, 4, 8]
    assert rig.saved("chosen") == (4, 4.0)


def test_no_moment_at_which_a_signal_stops_without_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for moment in range(1, 8):  # the n-th time anyone looks at the request
        looks = iter(range(1, 100))
        monkeypatch.setattr(StopRequest, "__bool__", lambda self, moment=moment, looks=looks: next(looks) >= moment)
        rig = Rig(tmp_path / str(moment), checkpoint_every=100)
        with pytest.raises(Stopped):
            rig.go()
        stopped_at = rig.step.done[-1] if rig.step.done else None
        assert rig.saved("resume")[0] == stopped_at


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"losses": {3: math.nan}}, "the loss at step 3 is nan"),
        ({"norms": {3: math.inf}}, "the gradient norm at step 3 is inf"),
    ],
)
def test_what_is_not_finite_stops_and_is_not_saved(
    broken: dict[str, dict[int, float]], sentence: str, tmp_path: Path
) -> None:
    rig = Rig(tmp_path, checkpoint_every=1)
    with pytest.raises(UserError, match=sentence) as caught:
        rig.go(**broken)
    assert "optimizer.learning_rate" in str(caught.value)
    assert rig.saved("resume") == (2, 2.0)


def test_a_held_out_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    rig = Rig(tmp_path, checkpoint_every=2)
    with pytest.raises(UserError, match="the held-out loss after step 4 is inf"):
        rig.go(scores={4: 1.0}, held_out_losses={4: math.inf})
    assert rig.saved("resume") == (2, 2.0)
    assert rig.saved("chosen") == (0, 0.0)
