"""The training step and the evaluation step: pure functions, compiled once per batch shape.

A training step computes the loss, its gradients with respect to `trainable` only, an AdamW update, and metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxvalues.config import LossConfig
from jaxvalues.models import Outputs
from jaxvalues.training.contrastive import affinity_for, contrastive_loss
from jaxvalues.training.losses import category_losses
from jaxvalues.training.optimizer import AdamW, Hyperparameters
from jaxvalues.tuning import Bound, Tuning

Apply = Callable[..., Outputs]  # (bound, batch, dropout key or None) -> logits [B, C] and embedding [B, E]


class TrainState(NamedTuple):
    """Everything that training changes. State, config and data together determine the rest of the run."""

    step: jax.Array  # updates done, int32
    trainable: Any
    optimizer: Any


def make_train_step(
    apply: Apply,
    tuning: Tuning,
    loss: LossConfig,
    optimizer: AdamW,
    *,
    accumulation: int = 1,
    stage: Literal["training", "pretraining"] = "training",
) -> Callable[[TrainState, Any, dict[str, jax.Array], Hyperparameters], tuple[TrainState, dict[str, jax.Array]]]:
    """The function (state, frozen, batch, hyper) -> (state, metrics).

    The loss is a mean over arguments (`weights` [B]), or over questions (`weights` [B, K]), however many of them a row
    has. With `accumulation` N, the batch [B, …] is split into N micro-batches of B/N rows. Losses and gradients are
    summed and divided once by the sum of the weights, so the result equals that of the whole batch, with or without
    padded rows. Dropout keys are fold_in(fold_in(seed, step), micro-batch).

    Metrics: loss, learning_rate, grad_norm, positives (share of logits above 0); contrastive if the loss has a
    contrastive term; prompt_norm if the method trains prompts or prefixes. In the stage `pretraining` the loss is the
    contrastive term alone.
    """
    contrastive = loss.contrastive
    views = loss.has_views
    joint = contrastive is not None and contrastive.use == "joint"

    def loss_sum(
        trainable: Any, frozen: Any, batch: dict[str, jax.Array], key: jax.Array, hyper: Hyperparameters
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        if views and (joint or stage == "pretraining"):  # each row twice, adjacent, with half the weight
            batch = {name: jnp.repeat(rows, 2, axis=0) for name, rows in batch.items()}
            batch["weights"] = batch["weights"] / 2
        outputs = apply(tuning.bind(frozen, trainable), batch, key)
        labels, weights = batch["labels"], batch["weights"]
        sums = {}
        if stage == "training":
            numbers = hyper.loss.for_categories(batch["categories"]) if "categories" in batch else hyper.loss
            sums["loss"] = _weighted_sum(category_losses(loss.kind, outputs.logits, labels, numbers), weights)
            sums["positives"] = _weighted_sum(outputs.logits > 0, weights)
        if stage == "pretraining" or joint:
            affinity = affinity_for(contrastive.positives, labels)
            term = contrastive_loss(outputs.embedding, affinity, weights, hyper.loss.temperature)
            sums["contrastive"] = term * weights.sum()  # it is a mean; `sums` are divided by the same count below
            weight = 1.0 if stage == "pretraining" else hyper.loss.contrastive_weight
            sums["loss"] = sums.get("loss", 0.0) + weight * sums["contrastive"]
        return sums["loss"], sums

    def train_step(
        state: TrainState, frozen: Any, batch: dict[str, jax.Array], hyper: Hyperparameters
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(hyper.seed), state.step)
        grad = jax.grad(loss_sum, has_aux=True)

        def micro_batch(number: jax.Array | int, rows: dict[str, jax.Array]) -> tuple[Any, dict[str, jax.Array]]:
            return grad(state.trainable, frozen, rows, jax.random.fold_in(key, number), hyper)

        if accumulation == 1:
            grads, sums = micro_batch(0, batch)
        else:
            # [B, …] -> [N, B/N, …]; each micro-batch takes rows from all shards.
            micro = jax.tree.map(lambda x: x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1), batch)

            def add(total: Any, numbered: tuple[jax.Array, Any]) -> tuple[Any, None]:
                return jax.tree.map(jnp.add, total, micro_batch(*numbered)), None

            shapes = jax.eval_shape(micro_batch, 0, jax.tree.map(lambda x: x[0], micro))
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            (grads, sums), _ = jax.lax.scan(add, zeros, (jnp.arange(accumulation), micro))

        count = jnp.maximum(batch["weights"].sum(), 1.0)
        trainable, moments, metrics = optimizer.update(
            grads, state.optimizer, state.trainable, state.step, hyper, count=count
        )
        means = {name: value / count for name, value in sums.items()}
        norm = prompt_norm(tuning.bind(frozen, state.trainable))
        metrics |= {} if norm is None else {"prompt_norm": norm}
        return TrainState(state.step + 1, trainable, moments), {**means, **metrics}

    return train_step


def _weighted_sum(values: jax.Array, weights: jax.Array) -> jax.Array:
    """The sum of values [B, C] with weights of their own, or with one weight [B] for the mean of each row."""
    return jnp.sum((values if weights.ndim == 2 else values.mean(axis=-1)) * weights)


def prompt_norm(bound: Bound) -> jax.Array | None:
    """The global norm of prompts and prefixes; None if there are none."""
    added = (bound.prompt, bound.prefix)
    return optax.global_norm(added) if jax.tree.leaves(added) else None


def make_embedding_step(apply: Apply, tuning: Tuning) -> Callable[[Any, Any, dict[str, jax.Array]], jax.Array]:
    """The function (trainable, frozen, batch) -> the embeddings [B, E] of the contrastive loss, without dropout."""

    def embedding_step(trainable: Any, frozen: Any, batch: dict[str, jax.Array]) -> jax.Array:
        return apply(tuning.bind(frozen, trainable), batch, None).embedding

    return embedding_step


def make_eval_step(apply: Apply, tuning: Tuning) -> Callable[[Any, Any, dict[str, jax.Array]], jax.Array]:
    """The function (trainable, frozen, batch) -> logits [B, C], without dropout."""

    def eval_step(trainable: Any, frozen: Any, batch: dict[str, jax.Array]) -> jax.Array:
        return apply(tuning.bind(frozen, trainable), batch, None).logits

    return eval_step
