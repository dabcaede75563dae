"""One training step and one evaluation step: pure functions, compiled once per batch shape.

loss → gradients with respect to `trainable` only → AdamW → metrics
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvalues.config import LossConfig
from jaxvalues.training.losses import weighted_sum
from jaxvalues.training.optimizer import AdamW, Hyper
from jaxvalues.tuning.weights import Tuning

Apply = Callable[..., jax.Array]  # (params, batch, dropout key or None) -> logits [B, C]


class TrainState(NamedTuple):
    """All that changes while training; together with the config and the data it decides the rest of the run."""

    step: jax.Array  # updates done, int32
    trainable: Any
    optimizer: Any


def make_train_step(
    apply: Apply, tuning: Tuning, loss: LossConfig, optimizer: AdamW, accumulation: int = 1
) -> Callable[[TrainState, Any, dict[str, jax.Array], Hyper], tuple[TrainState, dict[str, jax.Array]]]:
    """The function (state, frozen, batch, hyper) -> (state, metrics).

    With `accumulation` K the batch [B, …] is taken as K micro-batches of B/K rows. Losses and gradients are summed over
    rows and divided once by the number of real rows, so that K micro-batches are one batch, padded rows or not.
    Dropout keys are fold_in(fold_in(seed, step), micro-batch). Metrics: loss, learning_rate, grad_norm, positives
    (share of logits above 0).
    """

    def loss_sum(trainable: Any, frozen: Any, batch: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, Any]:
        logits = apply(tuning.bind(frozen, trainable).params, batch, key)
        positives = jnp.sum((logits > 0).mean(axis=-1) * batch["weights"])
        return weighted_sum(loss, logits, batch["labels"], batch["weights"]), positives

    def train_step(
        state: TrainState, frozen: Any, batch: dict[str, jax.Array], hyper: Hyper
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(hyper.seed), state.step)
        grad = jax.value_and_grad(loss_sum, has_aux=True)

        def micro_batch(number: jax.Array | int, rows: dict[str, jax.Array]) -> tuple[tuple[jax.Array, Any], Any]:
            return grad(state.trainable, frozen, rows, jax.random.fold_in(key, number))

        if accumulation == 1:
            sums, grads = micro_batch(0, batch)
        else:
            # [B, …] -> [K, B/K, …] with the rows of a micro-batch spread over all shards.
            micro = jax.tree.map(lambda x: x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1), batch)

            def add(total: Any, numbered: tuple[jax.Array, Any]) -> tuple[Any, None]:
                return jax.tree.map(jnp.add, total, micro_batch(*numbered)), None

            shapes = jax.eval_shape(micro_batch, 0, jax.tree.map(lambda x: x[0], micro))
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            (sums, grads), _ = jax.lax.scan(add, zeros, (jnp.arange(accumulation), micro))

        count = jnp.maximum(batch["weights"].sum(), 1.0)
        loss_value, positives = jax.tree.map(lambda x: x / count, sums)
        trainable, moments, metrics = optimizer.update(
            grads, state.optimizer, state.trainable, state.step, hyper, count=count
        )
        return TrainState(state.step + 1, trainable, moments), {
            "loss": loss_value,
            "positives": positives,
            **metrics,
        }

    return train_step


def make_eval_step(apply: Apply, tuning: Tuning) -> Callable[[Any, Any, dict[str, jax.Array]], jax.Array]:
    """The function (trainable, frozen, batch) -> logits [B, C], without dropout."""

    def eval_step(trainable: Any, frozen: Any, batch: dict[str, jax.Array]) -> jax.Array:
        return apply(tuning.bind(frozen, trainable).params, batch, None)

    return eval_step
