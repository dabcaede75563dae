"""Several runs at once: seeds and learning rates of a small trainable tree, on one frozen network.

`train_together` tells the story, as `train` does for one run. Every run has a folder of its own, with what a run alone
writes, and the same numbers to float tolerance.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvalues.config import Config
from jaxvalues.config.schema import TRACED_LOSS, TRACED_OPTIMIZER
from jaxvalues.errors import UserError
from jaxvalues.evaluation.measures import TaskScores
from jaxvalues.run.ahead import compiling_ahead
from jaxvalues.run.console import RunConsole
from jaxvalues.run.estimate import activation_bytes, step_rows
from jaxvalues.run.held import hold_frozen
from jaxvalues.run.inputs import Inputs, prepare
from jaxvalues.run.lock import locks_released
from jaxvalues.run.member import Member
from jaxvalues.run.network import count
from jaxvalues.run.outcome import held_out_metrics
from jaxvalues.run.outline import outline
from jaxvalues.run.prediction import encode, likelihood_logits, predict_split, with_features
from jaxvalues.run.resolve import resolve
from jaxvalues.run.state import initial_state, initial_weights, read_weights, restart, training_stages
from jaxvalues.run.system import System, Weights
from jaxvalues.run.warm_start import WarmStart, find_warm_start
from jaxvalues.run.watch import Watch
from jaxvalues.training.compilation import Programs
from jaxvalues.training.loop import Loop, Stage
from jaxvalues.training.memory import available_bytes
from jaxvalues.training.preemption import StopRequest
from jaxvalues.training.record import of_member
from jaxvalues.training.sharding import replicated, tree_shardings
from jaxvalues.training.step import TrainState
from jaxvalues.training.together import Members, batches_together, stack, stack_hyperparameters, state_of

SMALL = ("head", "bitfit", "lora", "ia3", "prompt", "p_tuning", "prefix")
"""The methods whose trainable tree is small, so that several of them fit beside one frozen network."""
MOST = 16
"""Runs that train together at most: with more of them a step takes longer in proportion."""
SCRATCH = 4
"""What a step takes beside weights, over the estimate of its activations: XLA's temporaries were 2 of it (GPT-2 and
MiniLM), and malloc may keep two such blocks."""
SAVE_SECONDS = 60.0
"""How long runs that train together go on, at least, from one saved state to the next."""


class ApartError(UserError):
    """These runs cannot train together; each can alone."""


def together_key(config: Config) -> str | None:
    """What runs have in common that can train together; None for a run that trains alone.

    They may differ in seeds and in numbers that are traced. What is frozen and random comes from the seed, which is
    then the same.
    """
    mesh = config.mesh
    if config.tuning.method not in SMALL or mesh.fsdp != 1 or mesh.tensor != 1 or config.runtime.distributed:
        return None
    if config.formulation.generates or config.formulation.chat:
        return None
    tree = config.explicit().decisive()
    seeds = [config.start_seed] * (config.model.config is not None)  # of random weights that are frozen
    seeds += [config.seed] * (config.formulation.examples is not None)  # of the examples that prompts show
    for name in ("seed", "init_seed"):
        tree.pop(name, None)
    for name in TRACED_OPTIMIZER:
        del tree["optimizer"][name]
    for name in TRACED_LOSS:
        del tree["loss"][name]
    if tree["loss"]["contrastive"] is not None:
        for name in ("weight", "temperature"):
            del tree["loss"]["contrastive"][name]
    return json.dumps([tree, seeds, config.data.dir, config.model.path], sort_keys=True)


def most_together(config: Config) -> int:
    """How many runs like this one should train together: at most `MOST`, and what three quarters of free memory hold.

    A run needs `SCRATCH` times the activations of a step, and what trains with its moments, estimated as `jaxvalues
    show` does.
    """
    network, _, texts = outline(config)
    activations = activation_bytes(network, config, step_rows(config, network, texts))
    each = SCRATCH * activations + 20 * count(network.abstract_parts()[1])
    return max(1, min(MOST, int(0.75 * available_bytes() / each)))


@locks_released()
def train_together(
    configs: Sequence[Config], consoles: Sequence[RunConsole], programs: Programs | None = None
) -> list[dict[str, TaskScores] | Exception]:
    """Train runs with the same `together_key`, and tune and score each, as `train` does for one.

    Each run says on its console what it finds. Unfinished runs resume, if all are at the same step. Returns the scores
    of each run, {split: scores}, or the exception by which it failed: the others go on. Raises ApartError where they
    cannot train together, Stopped when asked to stop, and whatever concerns all of them.
    """
    configs, said = [resolve(config) for config in configs], consoles[0]
    runs = [Member(*one) for one in zip(configs, consoles, strict=True)]
    steps = {run.folder.newest_step() for run in runs}
    if len(steps) > 1:
        raise ApartError("these runs stand at different steps, so they cannot train together")
    resumed = steps.pop()

    # What goes in: the same for all, but for the order of the arguments.
    inputs = prepare(configs[0], said, programs)
    parts, system = inputs.parts, inputs.system
    batches = batches_together([replace(inputs.batches, seed=config.seed) for config in configs])
    if batches is None:
        raise ApartError("the batches of these seeds have different shapes, so they cannot train together")
    warm_start = find_warm_start(system, said)
    for run in runs:
        run.alone(run.open, inputs, warm_start)
    if not any(run.trains for run in runs):
        return [run.scores if run.error is None else run.error for run in runs]

    # Steps compile in threads from here on: shapes are enough for that.
    several = system.together(Members(len(runs), len({config.seed for config in configs}) == 1))
    each = [training_stages(several.of_member(one), batches.steps_per_epoch, parts.training.labels) for one in configs]
    stages = [_stage_together(stages, several.members) for stages in zip(*each, strict=True)]
    with ExitStack() as closing, compiling_ahead(several, stages, batches, inputs.held_out, step=resumed or 0):
        # The weights: what is frozen once, what trains for each.
        frozen, trainables = _initial_weights(inputs, warm_start, [config.start_seed for config in configs])
        one = Weights(frozen, trainables[0])
        tokens, held_out = (with_features(system, one, some) for some in (inputs.batches.tokens, inputs.held_out))
        batches = batches_together([replace(inputs.batches, seed=run.config.seed, tokens=tokens) for run in runs])
        for run, own in zip(runs, trainables, strict=True):
            run.alone(run.start, inputs, Weights(frozen, own), held_out, closing, resumed)

        # The state: fresh, or the newest checkpoints'.
        state = initial_state(several, _on_mesh(several, trainables))
        if resumed is not None:
            states = [run.alone(run.restore, system) or state_of(state, number) for number, run in enumerate(runs)]
            _, *trees = zip(*states, strict=True)
            here = jax.device_put(jnp.int32(resumed), replicated(system.mesh))
            state = TrainState(here, *(_on_mesh(several, own) for own in trees))
        del trainables

        # Training.
        proposed = several.proposed(parts.held_out)

        def evaluate(trainable: Any, stop: StopRequest) -> list[dict[str, float]] | None:
            logits = likelihood_logits(several, Weights(frozen, trainable), held_out, Watch(stop=stop.__bool__))
            if logits is None:
                return None
            hypers = (own[-1].hyper.loss for own in each)
            return [
                held_out_metrics(config, parts.held_out, own, hyper, proposed)
                for config, own, hyper in zip(configs, logits, hypers, strict=True)
            ]

        Loop(
            config=configs[0],
            batches=batches,
            stages=stages,
            restart=partial(restart, several),
            evaluate=evaluate,
            record=_Records(runs, system),
            console=said.console,
        ).run(state, frozen, system.mesh)
    del state

    # The chosen parameters of each run predict; each tunes its decision where nothing is reported.
    splits = [(parts.held_out, held_out)]
    splits += [(split, with_features(system, one, encode(system, split, said))) for split in parts.reported]
    chosen = Weights(frozen, _on_mesh(several, [_best(run, runs, one) for run in runs]))
    predicted = [predict_split(several, chosen, *each) for each in splits]
    for number, run in enumerate(runs):
        own = [every._replace(logits=every.logits[number]) for every in predicted]
        run.alone(run.finish, inputs, frozen, held_out, own)
    return [run.scores if run.error is None else run.error for run in runs]


def _stage_together(stages: Sequence[Stage], members: Members) -> Stage:
    """The same stage of all runs as one."""
    return stages[0]._replace(hyper=stack_hyperparameters([stage.hyper for stage in stages], members))


def _initial_weights(inputs: Inputs, warm_start: WarmStart, seeds: Sequence[int]) -> tuple[Any, list[Any]]:
    """What is frozen, and what trains for each seed. A checkpoint is read once."""
    system, base = inputs.system, inputs.base
    known = None if base.is_random else read_weights(system, base, held=True)
    made = {
        seed: warm_start.replace(initial_weights(system, base, seed, held=True, known=known))
        for seed in dict.fromkeys(seeds)
    }
    return hold_frozen(system, made[seeds[0]]).frozen, [made[seed].trainable for seed in seeds]


def _on_mesh(several: System, trees: Sequence[Any]) -> Any:
    """The trees of all runs with a leading axis [R], where a step takes them."""
    stacked = stack(trees)
    return jax.device_put(stacked, tree_shardings(stacked, several.mesh))


def _best(run: Member, runs: Sequence[Member], start: Weights) -> Any:
    """The parameters of a run that predict; any others for one that failed, whose predictions nobody reads."""
    return next((each.best for each in (run, *runs) if each.best is not None), start.trainable)


class _Records:
    """What a loop tells of all runs, and asks about them (see `Recording`)."""

    def __init__(self, runs: Sequence[Member], system: System) -> None:
        self.runs, self.system, self.saved = runs, system, time.monotonic()

    @property
    def evaluated_at(self) -> int:
        return max((run.notes.memory.evaluated for run in self.runs if run.trains), default=-1)

    @property
    def is_over(self) -> bool:
        return not any(run.trains for run in self.runs)

    def trained(self, step: int, values: dict[str, np.ndarray], rates: dict[str, float] | None) -> None:
        for number, run in self._training():
            run.alone(run.notes.trained, step, of_member(values, number), rates)

    def evaluated(self, step: int, values: Sequence[dict[str, float]], state: TrainState) -> None:
        for number, run in self._training():
            run.alone(run.evaluated, step, values[number], partial(state_of, state, number))

    def save(self, step: int, state: TrainState, stopping: bool) -> None:
        if not stopping and time.monotonic() - self.saved < SAVE_SECONDS:
            return
        for number, run in enumerate(self.runs):
            run.alone(run.save, step, partial(state_of, state, number), self.system)
        self.saved = time.monotonic()

    def ended(self, step: int, state: TrainState) -> None:
        for number, run in self._training():
            run.alone(run.ended, step, partial(state_of, state, number))

    def _training(self) -> list[tuple[int, Member]]:
        return [(number, run) for number, run in enumerate(self.runs) if run.trains]
