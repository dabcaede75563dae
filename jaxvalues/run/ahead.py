"""Compiling ahead: every step for every batch shape that a run will meet, in threads, while the run goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import jax

from jaxvalues.data.batches import Tokens, inputs_shape
from jaxvalues.data.training_batches import TrainingBatches
from jaxvalues.run.held import hold_all
from jaxvalues.run.network import count
from jaxvalues.run.prediction import one_of_each_length
from jaxvalues.run.system import System, Weights
from jaxvalues.training.loop import Stage
from jaxvalues.training.processes import is_alone
from jaxvalues.training.sharding import place_batch
from jaxvalues.training.step import TrainState

MOST = 4
"""Compiles at a time: each takes memory of its own, and XLA uses several threads for one."""


@contextmanager
def compiling_ahead(
    system: System,
    state: TrainState,
    frozen: Any,
    *,
    stages: Sequence[Stage],
    batches: TrainingBatches,
    held_out: Tokens,
) -> Iterator[None]:
    """A block of training, whose steps compile in threads from its start on: first those of the evaluation.

    Compiling releases Python's lock, so several programs compile at once, while the run reads, evaluates or trains.
    Nothing compiles that the run will not meet, unless it ends early. Several processes compile when they meet a shape:
    they must do it in the same order.
    """
    step = int(state.step)
    if not is_alone() or not count(state.trainable) or step >= stages[-1].end:
        yield
        return
    pool = ThreadPoolExecutor(min(MOST, os.cpu_count() or 1), thread_name_prefix="compile")
    try:
        state, frozen = abstract(state), abstract(frozen)
        weights = hold_all(system, Weights(frozen, state.trainable))
        for inputs in one_of_each_length(system, held_out):
            placed = abstract(place_batch(inputs, system.mesh))
            system.eval_step.start(pool, inputs_shape(inputs), weights.trainable, weights.frozen, placed)
        for stage in (one for one in stages if step < one.end):
            for batch in batches.one_of_each_length():
                placed = abstract(place_batch(batch, system.mesh))
                stage.step.start(pool, inputs_shape(batch), state, frozen, placed, stage.hyper)
        yield
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def abstract(tree: Any) -> Any:
    """Shapes, dtypes and places of arrays. The arrays themselves may be donated while a thread compiles for them."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
