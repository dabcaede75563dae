"""Compiling ahead: every step for every batch shape that a run will meet, in threads, while the run goes on."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax

from jaxvalues.data.batches import Batch, Tokens, inputs_shape
from jaxvalues.data.training_batches import TrainingBatches
from jaxvalues.run.held import held_tree, hold_all
from jaxvalues.run.network import count
from jaxvalues.run.prediction import one_of_each_length
from jaxvalues.run.system import System, Weights
from jaxvalues.training.compilation import compile_threads
from jaxvalues.training.loop import Stage
from jaxvalues.training.processes import is_alone
from jaxvalues.training.sharding import batch_sharding, tree_shardings
from jaxvalues.training.step import TrainState
from jaxvalues.training.together import StackedBatches

MOST = 4
"""Compiles at a time: each takes memory of its own, and XLA uses several threads for one."""


@contextmanager
def compiling_ahead(
    system: System,
    stages: Sequence[Stage],
    batches: TrainingBatches | StackedBatches,
    held_out: Tokens,
    *,
    step: int = 0,
) -> Iterator[None]:
    """A block of a run that stands at `step`, whose steps compile in threads from its start on.

    They compile from shapes: no weight has to be there yet. Compiling releases Python's lock, so several programs
    compile at once, while the run makes weights, evaluates or trains; first those that train, which take longest.
    Nothing compiles that the run will not meet, unless it ends early. Several processes compile when they meet a shape:
    they must do it in the same order.
    """
    state, frozen = abstract_run(system)
    if not is_alone() or not count(state.trainable) or step >= stages[-1].end:
        yield
        return
    with compile_threads(min(MOST, os.cpu_count() or 1)) as pool:
        weights = hold_all(system, Weights(frozen, state.trainable))
        evaluations = [abstract_batch(system, weights, inputs) for inputs in one_of_each_length(system, held_out)]
        for stage in (one for one in stages if step < one.end):
            for batch in batches.one_of_each_length():
                placed = abstract_batch(system, weights, batch)
                stage.step.start(pool, inputs_shape(placed), state, frozen, placed, stage.hyper)
                if evaluations:
                    placed = evaluations.pop(0)
                    system.eval_step.start(pool, inputs_shape(placed), weights.trainable, weights.frozen, placed)
        for placed in evaluations:
            system.eval_step.start(pool, inputs_shape(placed), weights.trainable, weights.frozen, placed)
        yield


def abstract_run(system: System) -> tuple[TrainState, Any]:
    """Shapes, dtypes and places of the state and of the frozen weights of a run."""
    frozen, _ = system.network.abstract_parts()
    state = system.abstract_state()
    return _placed(state, system.mesh), _placed(held_tree(frozen, system.network), system.mesh)


def abstract_batch(system: System, weights: Weights, batch: Batch) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and places of a batch; with the features that will replace the ids as input, if they will."""
    place = batch_sharding(batch, system.mesh)
    arrays = {name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place) for name, array in batch.items()}
    if not system.network.reuses_features or "hidden" in arrays:
        return arrays
    *leading, length = arrays.pop("input_ids").shape
    ids = jax.ShapeDtypeStruct((math.prod(leading), length), "int32")
    rows = {"input_ids": ids, "attention_mask": ids}
    hidden = jax.eval_shape(system.feature_step.jitted, weights.trainable, weights.frozen, rows)
    shape = (*leading, length, hidden.shape[-1])
    return {"hidden": jax.ShapeDtypeStruct(shape, hidden.dtype, sharding=place), **arrays}


def _placed(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Abstract arrays where a run has them on the mesh."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        tree_shardings(tree, mesh),
    )
