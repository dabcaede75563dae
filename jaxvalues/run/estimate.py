"""Estimates of what a run takes, from its config and the sizes of its network: work, memory, steps, time."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from jaxvalues.config import GENERATED, Config
from jaxvalues.data.held_out import Parts
from jaxvalues.data.subset import count_pairs
from jaxvalues.data.training_batches import EpochSize
from jaxvalues.formulations import CAUSAL, AnyTemplate
from jaxvalues.run.held import held_tree
from jaxvalues.run.network import Network
from jaxvalues.run.provenance import differences, read_run_config
from jaxvalues.templates.questions import QuestionTemplate
from jaxvalues.training.metrics import read_metrics
from jaxvalues.training.sharding import partition


def step_rows(config: Config, network: Network, texts: AnyTemplate) -> int:
    """Rows of a training step: one for each argument of a classifier and where questions branch, else one for each
    question. With `data.negatives`, which asks fewer, it is an upper bound."""
    training = config.training
    if not isinstance(texts, QuestionTemplate):
        return training.batch_size
    branch = network.sizes.model_type in CAUSAL and texts.shares_context and not config.formulation.generates
    return training.questions_per_step or training.batch_size * (1 if branch else len(texts.labels))


def work(network: Network, config: Config, length: int, rows: int) -> tuple[float, float]:
    """Estimated floating-point operations of (one training step of `rows` rows, one row's prediction) at one length.

    Two operations a weight of the matrix products and token, and 4·T·D a token and layer for attention, over T tokens
    with those of a prompt or prefix (Kaplan et al. 2020, §2.1). Backward costs twice as much in attention, and in
    products whose weights train; as much as forward where the weights are frozen and gradients only pass through;
    nothing below the lowest layer that trains. What branches from a row, what LoRA adds and the output matrix are not
    counted.
    """
    model, tuning = network.sizes, config.tuning
    tokens = length + (tuning.length if tuning.method in ("prompt", "p_tuning") else 0)
    keys = tokens + (tuning.length if tuning.method == "prefix" else 0)
    products = 2 * tokens * (4 * model.hidden_size**2 + 2 * model.hidden_size * model.intermediate_size)
    attention = 4 * tokens * keys * model.hidden_size
    forward = network.num_layers * (products + attention)
    if tuning.method == "none":
        return rows * forward, forward
    passes = 2 if tuning.method in ("full", "last_layers") else 1
    backward = (network.num_layers - network.boundary) * (passes * products + 2 * attention)
    return rows * (forward + backward), forward


def kept_bytes(network: Network, mesh: AbstractMesh | Mesh) -> int:
    """The bytes of weights, gradients and Adam's moments on each device of a mesh, which need not be here. Exact.

    What trains takes 16 bytes a parameter; what is frozen is in the form in which a run holds it.
    """
    frozen, trainable = network.abstract_parts()

    def on_each(tree: Any, bytes_of: Callable[[Any], float]) -> int:
        total = 0.0
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            part = NamedSharding(mesh, partition(name, leaf.shape, mesh)).shard_shape(leaf.shape)
            total += math.prod(part) * bytes_of(leaf.dtype)
        return math.ceil(total)

    return on_each(trainable, lambda _: 16) + on_each(held_tree(frozen, network), _bytes_each)


def _bytes_each(dtype: Any) -> float:
    return 0.5 if dtype == jnp.int4 else dtype.itemsize


def activation_bytes(network: Network, config: Config, rows: int) -> float:
    """Estimated bytes of the activations that are kept for the backward pass, over all devices together.

    `rows` are those of a step, which micro-batches share. Activations follow Korthikanti et al. 2022, eq. 2:
    T·B·D·(34 + 5·N·T / D) bytes a layer at 2 bytes a number; with remat only the layers' inputs are kept.
    """
    model, length = network.sizes, config.lengths[-1]
    rows = max(1, rows // config.training.accumulation)
    layers = network.num_layers - network.boundary
    factor = network.dtype.itemsize / 2
    per_token = 2.0 if config.model.remat else 34 + 5 * model.num_heads * length / model.hidden_size
    return layers * rows * length * model.hidden_size * per_token * factor


def epoch_size(config: Config, parts: Parts) -> EpochSize:
    """The arguments, questions and training steps of one epoch. They do not depend on the network."""
    training, labels = config.training, parts.training.labels
    form = config.formulation
    asks = form.asks_questions and form.kind not in GENERATED
    questions = count_pairs(labels, config.data.negatives) if asks else None
    return EpochSize.of(len(parts.training), questions, training.batch_size, training.questions_per_step)


def measured_rate(config: Config) -> float | None:
    """Arguments a second of this very run where its folder has measured them, None otherwise."""
    metrics = config.folder / "metrics.jsonl"
    if not metrics.is_file() or differences(read_run_config(config.folder), config).keys() - _RESOLVED:
        return None
    rates = [values["arguments_per_s"] for _, values in read_metrics(metrics) if "arguments_per_s" in values]
    return median(rates) if rates else None


_RESOLVED = {"model.dtype"}  # written out when the run began
