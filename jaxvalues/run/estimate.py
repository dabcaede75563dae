"""Estimates of what a run takes, from its config and the sizes of its network: work, memory, steps, time."""

from __future__ import annotations

from statistics import median

from jaxvalues.config import Config, load_config
from jaxvalues.data.held_out import Parts
from jaxvalues.data.subset import sample_pairs
from jaxvalues.formulations import CAUSAL
from jaxvalues.run.network import Network, count
from jaxvalues.run.provenance import differences
from jaxvalues.templates.questions import QuestionTemplate
from jaxvalues.templates.template import Template
from jaxvalues.training.metrics import read_metrics


def work(network: Network, config: Config, length: int) -> tuple[float, float]:
    """Estimated floating-point operations of (one training step, one row's prediction) at one length.

    Two operations a weight of the matrix products and token, and 4·T·D a token and layer for attention (Kaplan et al.
    2020, §2.1). Backward costs twice as much in the layers that train, as much as forward where gradients only pass
    through to what was added before the input; nothing below the lowest layer that trains. What branches from a row,
    and the output matrix, is not counted.
    """
    model = network.sizes
    per_layer = 2 * (4 * model.hidden_size**2 + 2 * model.hidden_size * model.intermediate_size)
    per_layer += 4 * length * model.hidden_size
    trained = network.num_layers - network.boundary
    forward = per_layer * length * network.num_layers
    passes = {"none": 0, **dict.fromkeys(("prompt", "p_tuning", "prefix"), 1)}.get(config.tuning.method, 2)
    backward = passes * per_layer * length * trained
    return config.training.batch_size * (forward + backward), forward


def memory(network: Network, config: Config) -> tuple[float, float]:
    """Estimated bytes of (weights with gradients and Adam's moments, activations kept for the backward pass).

    Weights are float32: 4 bytes frozen, 16 bytes where they train. Activations follow Korthikanti et al. 2022, eq. 2:
    T·B·D·(34 + 5·N·T / D) bytes a layer at 2 bytes a number; with remat only the layers' inputs are kept.
    """
    frozen, trainable = network.abstract_parts()
    model, length = network.sizes, config.lengths[-1]
    rows = config.training.batch_size // config.training.accumulation
    layers = network.num_layers - network.boundary
    factor = network.dtype.itemsize / 2
    per_token = 2.0 if config.model.remat else 34 + 5 * model.num_heads * length / model.hidden_size
    activations = layers * rows * length * model.hidden_size * per_token * factor
    return 4.0 * count(frozen) + 16.0 * count(trainable), activations


def steps_per_epoch(config: Config, parts: Parts, network: Network, texts: Template | QuestionTemplate) -> int:
    """Training steps of one epoch: of arguments, or of questions where each is a row of its own."""
    rows = len(parts.training)
    if config.data.negatives is not None:
        rows = len(sample_pairs(parts.training.labels, config.data.negatives, config.seed)[0])
    elif isinstance(texts, QuestionTemplate):
        branches = network.sizes.model_type in CAUSAL and texts.shares_context and not config.formulation.generates
        rows *= 1 if branches else len(texts.labels)
    return -(-rows // config.training.batch_size)


def measured_rate(config: Config) -> float | None:
    """Rows a second of this very run where its folder has measured them, None otherwise."""
    metrics = config.folder / "metrics.jsonl"
    if not metrics.is_file() or differences(load_config(config.folder / "config.yaml"), config).keys() - _RESOLVED:
        return None
    rates = [values["arguments_per_s"] for _, values in read_metrics(metrics) if "arguments_per_s" in values]
    return median(rates) if rates else None


_RESOLVED = {"model.dtype"}  # written out when the run began
