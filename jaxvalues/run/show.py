"""`jaxvalues show`: what a config means before anything runs. Reads no weights, compiles nothing."""

from __future__ import annotations

import math
from typing import Any

import jax
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from jaxvalues.config import LEARNING_RATES, Config
from jaxvalues.data.task import TASKS
from jaxvalues.formulations import load_texts
from jaxvalues.models import checkpoint_config, fetch
from jaxvalues.run.network import Network, build_network, count


def show(config: Config, console: Console) -> None:
    """Print the resolved config, parameter counts, and estimates of work and memory."""
    rate_is_default, config = config.optimizer.learning_rate is None, config.explicit()
    hf_config = _hf_config(config)
    load_texts(config.formulation, TASKS[config.data.task])
    network = build_network(config, hf_config)
    frozen, trainable = network.abstract_parts()

    console.print(Syntax(config.to_yaml().rstrip(), "yaml", background_color="default"))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    sizes = network.sizes
    table.add_row("network", sizes.model_type, f"{sizes.num_layers} layers, hidden_size {sizes.hidden_size}")
    table.add_row("parameters that train", f"{count(trainable):,}", _parts(trainable))
    table.add_row("frozen parameters", f"{count(frozen):,}", _parts(frozen))
    _, source = LEARNING_RATES[config.tuning.method]
    said = f"the default of {config.tuning.method}: {source}" if rate_is_default else "as the config says"
    table.add_row("learning rate", f"{config.optimizer.learning_rate:g}", said)
    for length in config.lengths:
        step, forward = work(network, config, length)
        table.add_row(
            f"work at length {length}",
            f"{step / 1e9:,.0f} GFLOP",
            f"a training step of {config.training.batch_size}; {forward / 1e9:,.1f} GFLOP to predict one row",
        )
    weights, activations = memory(network, config)
    table.add_row("weights, gradients, Adam", f"{weights / 2**20:,.0f} MiB", "over all devices that do not repeat them")
    table.add_row("activations", f"{activations / 2**20:,.0f} MiB", "rough, at the longest length, for one micro-batch")
    console.print(table)


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


def _hf_config(config: Config) -> dict[str, Any]:
    if config.model.config is None:
        return checkpoint_config(fetch(config.model.path, config.model.revision))
    guess = {} if config.model.train_tokenizer is None else {"vocab_size": config.model.train_tokenizer.vocab_size}
    return {**guess, **config.model.config}


def _parts(tree: Any) -> str:
    """How many parameters each branch holds, e.g. `embeddings 1.2 M, layers 10.6 M, head 7.7 k`."""
    sizes: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        names = [str(key.key) for key in path]
        branch = names[1] if names[0] == "encoder" else names[0]
        sizes[branch] = sizes.get(branch, 0) + math.prod(leaf.shape)
    return ", ".join(f"{branch} {_short(size)}" for branch, size in sizes.items())


def _short(size: int) -> str:
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= factor:
            return f"{size / factor:.1f} {letter}"
    return str(size)
