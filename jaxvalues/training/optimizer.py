"""AdamW whose numbers (learning rate, decays, warm-up, clipping) are traced arguments of the compiled step.

A sweep over them therefore compiles nothing new.

The update is Loshchilov & Hutter's (2019, algorithm 2): p ← p − η·m·(Adam(g) + λ·p), with m the layer-wise factor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvalues.config import OptimizerConfig
from jaxvalues.models.layers.layout import layer_range
from jaxvalues.training.losses import LossHyperparameters

NO_DECAY = ("bias", "scale")  # leaf names of biases and layer norms


class Hyperparameters(NamedTuple):
    """The numbers that a training step takes as traced scalars, float32 except `seed` (uint32)."""

    learning_rate: jax.Array
    weight_decay: jax.Array
    layer_decay: jax.Array
    clip_norm: jax.Array
    warmup_steps: jax.Array
    total_steps: jax.Array
    seed: jax.Array
    first_step: jax.Array
    loss: LossHyperparameters | None


def make_hyperparameters(
    config: OptimizerConfig,
    total_steps: int,
    seed: int,
    *,
    loss: LossHyperparameters | None = None,
    first_step: int = 0,
) -> Hyperparameters:
    """The hyperparameters of a stage of `total_steps` steps that starts at step `first_step` of the run.

    Warm-up is rounded up to whole steps. Without clipping, `clip_norm` is infinite. `loss` has the loss's own numbers.
    """
    return Hyperparameters(
        learning_rate=np.float32(config.learning_rate),
        weight_decay=np.float32(config.weight_decay),
        layer_decay=np.float32(config.layer_decay),
        clip_norm=np.float32(config.clip_norm or np.inf),
        warmup_steps=np.ceil(np.float32(config.warmup * total_steps)),
        total_steps=np.float32(total_steps),
        seed=np.uint32(seed),
        first_step=np.float32(first_step),
        loss=loss,
    )


def learning_rate_at(step: jax.Array, hyper: Hyperparameters, schedule: str) -> jax.Array:
    """Learning rate of update `step`: linear warm-up from `first_step`, then `schedule`.

    `cosine` and `linear` end at 0; `constant` stays at the full rate.
    """
    step = jnp.asarray(step, jnp.float32) - hyper.first_step
    warmup = jnp.minimum(1.0, (step + 1.0) / jnp.maximum(hyper.warmup_steps, 1.0))
    after = jnp.maximum(step - hyper.warmup_steps, 0.0) / jnp.maximum(hyper.total_steps - hyper.warmup_steps, 1.0)
    match schedule:
        case "cosine":
            shape = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.minimum(after, 1.0)))
        case "linear":
            shape = jnp.maximum(1.0 - after, 0.0)
        case "constant":
            shape = 1.0
    return hyper.learning_rate * warmup * shape


def layer_exponents(params: Any, num_layers: int) -> Any:
    """The exponent of the layer decay for each leaf of `params`.

    It is 0 for heads and the top layer, 1 for the layer below, and so on; embeddings have `num_layers`. A leaf of
    stacked layers [n, …] gets one exponent per layer, shaped [n, 1, …] to broadcast.
    """
    exponents = {}
    for path, leaf in flatten_dict(params, sep="/").items():
        layers = layer_range(path)
        if layers is None:
            exponents[path] = np.float32(num_layers if "embeddings/" in path else 0)
        else:
            below_top = num_layers - 1 - np.arange(layers[0], layers[1] + 1, dtype=np.float32)
            stacked = "-" in path.split("layers/")[1].split("/")[0]
            exponents[path] = below_top.reshape(-1, *[1] * (leaf.ndim - 1)) if stacked else below_top[0]
    return unflatten_dict(exponents, sep="/")


def decay_mask(params: Any) -> Any:
    """1 for each leaf with weight decay, 0 for biases and layer norms."""
    flat = flatten_dict(params)
    return unflatten_dict({path: np.float32(path[-1] not in NO_DECAY) for path in flat})


class AdamW:
    """The optimizer as pure functions. `state` holds Adam's moments and their count, as optax's `ScaleByAdamState`."""

    def __init__(self, config: OptimizerConfig, num_layers: int) -> None:
        self.schedule = config.schedule
        self.num_layers = num_layers
        self.adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)

    def init(self, params: Any) -> Any:
        """The initial state: zero moments for every leaf of `params`."""
        return self.adam.init(params)

    def update(
        self, grads: Any, state: Any, params: Any, step: jax.Array, hyper: Hyperparameters, *, count: Any = 1.0
    ) -> tuple[Any, Any, dict]:
        """One update with the mean gradients `grads` / `count`. Returns (params, state, metrics).

        `grads` are sums over `count` rows; the division is fused with clipping. Metrics: learning_rate, and grad_norm
        before clipping.
        """
        norm = optax.global_norm(grads) / count
        scale = jnp.minimum(1.0, hyper.clip_norm / jnp.maximum(norm, 1e-12)) / count
        directions, state = self.adam.update(jax.tree.map(lambda g: g * scale, grads), state)
        rate = learning_rate_at(step, hyper, self.schedule)

        def move(param: jax.Array, direction: jax.Array, exponent: np.ndarray, decays: np.ndarray) -> jax.Array:
            return param - rate * hyper.layer_decay**exponent * (direction + hyper.weight_decay * decays * param)

        params = jax.tree.map(move, params, directions, layer_exponents(params, self.num_layers), decay_mask(params))
        return params, state, {"learning_rate": rate, "grad_norm": norm}
