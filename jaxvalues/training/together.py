"""Several runs in one step: seeds and learning rates of small trainable trees, under `vmap`.

What trains, the optimizer's moments and the numbers that are traced have a leading axis [R], one entry for each run.
The frozen network is shared, and so are the batch and the dropout masks of runs that have one seed. Every run computes
what it computes alone, to float tolerance, and no run sees another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvalues.data.batches import Batch
from jaxvalues.data.training_batches import EpochSize, TrainingBatches
from jaxvalues.training.optimizer import Hyperparameters
from jaxvalues.training.step import TrainState

_STATE = TrainState(step=None, trainable=0, optimizer=0)  # where the axis [R] is: all runs are at the same step


class Members(NamedTuple):
    """How many runs train together, and whether they have one seed: then they share batches and dropout masks."""

    number: int
    one_seed: bool


def step_together(step: Callable[..., Any], members: Members) -> Callable[..., Any]:
    """A training step (see `make_train_step`) of all members: trainable, moments, hyperparameters and metrics get [R].

    Members of several seeds have batches [R, B, …].
    """
    fields = dict.fromkeys(Hyperparameters._fields, 0)
    hyper = Hyperparameters(**{**fields, "seed": None if members.one_seed else 0})
    batch = None if members.one_seed else 0
    return jax.vmap(step, in_axes=(_STATE, None, batch, hyper), out_axes=(_STATE, 0), axis_size=members.number)


def evaluate_together(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """An evaluation step (trainable [R, …], frozen, batch) -> logits [R, B, C]."""
    return jax.vmap(evaluate, in_axes=(0, None, None))


def start_together(start: Callable[[Any], tuple[jax.Array, Any]]) -> Callable[[Any], tuple[jax.Array, Any]]:
    """A function trainable [R, …] -> (step, moments [R, …]), from that of one run."""
    return jax.vmap(start, out_axes=(None, 0))


def abstract_together(state: TrainState, members: Members) -> TrainState:
    """Shapes of the state of all members, from those of one."""

    def stacked(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((members.number, *leaf.shape), leaf.dtype)

    return TrainState(state.step, *jax.tree.map(stacked, state[1:]))


def stack_hyperparameters(hypers: Sequence[Hyperparameters], members: Members) -> Hyperparameters:
    """The hyperparameters of all members, [R] each; the seed is a scalar where they have one."""
    stacked = jax.tree.map(lambda *values: np.stack(values), *hypers)
    return stacked._replace(seed=hypers[0].seed) if members.one_seed else stacked


@jax.jit
def stack(trees: Sequence[Any]) -> Any:
    """The trees of all members as one with a leading axis [R]."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@jax.jit
def member(tree: Any, number: int | jax.Array) -> Any:
    """The tree of one member; a copy, which lives on when the whole is donated."""
    return jax.tree.map(lambda leaf: leaf[number], tree)


def state_of(state: TrainState, number: int) -> TrainState:
    """The state of one member, as it would be alone."""
    return TrainState(state.step, *member(state[1:], number))


@dataclass(frozen=True)
class StackedBatches:
    """The batches of several seeds, stacked to [R, B, …]; otherwise as `TrainingBatches`."""

    members: tuple[TrainingBatches, ...]

    @property
    def size(self) -> EpochSize:
        """How much an epoch of one member contains."""
        return self.members[0].size

    @property
    def steps_per_epoch(self) -> int:
        return self.members[0].steps_per_epoch

    def starting_at(self, step: int) -> Iterator[Batch]:
        """The stacked batches from number `step` on."""
        return map(_stacked, zip(*(one.starting_at(step) for one in self.members), strict=True))

    def one_of_each_length(self) -> list[Batch]:
        """A batch of every shape that an epoch has."""
        return list(map(_stacked, zip(*(one.one_of_each_length() for one in self.members), strict=True)))


def batches_together(members: Sequence[TrainingBatches]) -> TrainingBatches | StackedBatches | None:
    """The batches of runs that train together; None where they would not have the same shapes at the same steps."""
    if len({one.seed for one in members}) == 1:
        return members[0]
    if len({(one.rows, one.steps_per_epoch) for one in members}) > 1:
        return None
    shapes = {tuple(one.planned_lengths()) for one in members}
    return StackedBatches(tuple(members)) if len(shapes) == 1 else None


def _stacked(batches: Sequence[Batch]) -> Batch:
    return {name: np.stack([one[name] for one in batches]) for name in batches[0]}
