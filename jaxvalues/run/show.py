"""`jaxvalues show`: what a config means before anything runs. Reads no weights, and compiles only when asked to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from jaxvalues.config import LEARNING_RATES, Config, runs_of
from jaxvalues.data.held_out import Parts
from jaxvalues.errors import ConfigError
from jaxvalues.run.estimate import activation_bytes, epoch_size, kept_bytes, measured_rate, step_rows, work
from jaxvalues.run.network import Network, count
from jaxvalues.run.outline import outline, parts_here
from jaxvalues.run.remote_plan import remote_rows
from jaxvalues.run.step_memory import simulate_devices, step_memory
from jaxvalues.training.sharding import abstract_mesh

Row = tuple[str, str]


def show(config: Config, console: Console, full: bool = False, compiled: bool = False) -> None:
    """Print what a config trains, on what, and estimates of work, memory and steps; with `full` the whole config.

    With `compiled` the training step is compiled for the mesh, and the compiler says what memory it needs. Of several
    runs the first is described. Data are read where they are, and not downloaded.
    """
    runs = runs_of(config)
    simulated = compiled and simulate_devices(runs[0])
    rate_is_default, one = config.optimizer.learning_rate is None, runs[0].explicit()
    if one.model.endpoint is not None:
        if compiled:
            raise ConfigError("model.endpoint: no training step is compiled for an endpoint, so leave out --compile")
        rows = remote_rows(one, parts_here(one.data))
    else:
        network, parts, texts = outline(one)
        takes = _takes(one, network, step_rows(one, network, texts))
        on_what = _on_what(one, parts) if network.trains else _asked_about(one, parts)
        rows = [*_what(one, network, rate_is_default), *on_what, *takes]

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    if len(runs) > 1:
        table.add_row("runs", f"{len(runs)}, and their combination; the first is {one.folder.name}:")
    for row in rows:
        table.add_row(*row)
    if compiled:
        table.add_row("", _compiled(one, simulated))
    console.print(table, highlight=False, markup=False, emoji=False)
    console.print()
    if full:
        console.print(Syntax(config.explicit().to_yaml().rstrip(), "yaml", background_color="default", word_wrap=True))
    else:
        console.print("Every setting, with the defaults: --full", style="dim", highlight=False)


def _what(config: Config, network: Network, rate_is_default: bool) -> Iterator[Row]:
    """The network, and what trains."""
    frozen, trainable = network.abstract_parts()
    sizes, form, method = network.sizes, config.formulation, config.tuning.method
    start = "random weights" if config.model.config is not None else config.model.path
    yield "network", f"{sizes.model_type}, {sizes.num_layers} layers, hidden_size {sizes.hidden_size}; {start}"
    yield "task", f"{config.data.task}, by formulation {form.kind}, template {form.template}"
    yield "trains", f"{count(trainable):,} parameters, method {method}" + _named(trainable)
    yield "frozen", f"{count(frozen):,} parameters" + _named(frozen)
    if not network.trains:
        return
    _, source = LEARNING_RATES[method]
    said = f"the default of {method}: {source}" if rate_is_default else "as the config says"
    yield "learning rate", f"{config.optimizer.learning_rate:g} ({said})"


def _on_what(config: Config, parts: Parts | None) -> Iterator[Row]:
    """The data and the steps, and how long they take where that was measured."""
    training = config.training
    yield "data", _data(config, parts, "{:,} arguments train, {:,} are held out")
    if parts is None:
        each = training.questions_per_step or training.batch_size
        of = "arguments" if training.questions_per_step is None else "questions"
        yield "steps", f"{_epochs(training.epochs)} in batches of {each} {of}; how many is not known yet"
        return
    size, epochs = epoch_size(config, parts), config.loss.pretraining_epochs + training.epochs
    yield "steps", f"{_epochs(epochs)} × {size.steps:,} = {epochs * size.steps:,}, each on {size}"
    if parts.subset_note is not None:
        yield "", parts.subset_note
    rate = measured_rate(config)
    if rate is None:
        yield "time", "not known before a run; `jaxvalues bench` measures a step"
    else:
        seconds = epochs * size.arguments / rate
        yield "time", f"about {_duration(seconds)} of steps, at the {rate:,.1f} arguments/s measured in {config.folder}"


def _asked_about(config: Config, parts: Parts | None) -> Iterator[Row]:
    """The data of an untuned network."""
    shown = config.formulation.examples
    pool = "{:,} training arguments are not used" if shown is None else "examples come from {:,} training arguments"
    yield "data", _data(config, parts, pool + ", {:,} are held out to tune the decision")
    yield "steps", "none: nothing trains"


def _data(config: Config, parts: Parts | None, sizes: str) -> str:
    """Where the data are, and the numbers of training and held-out arguments in the words of `sizes`."""
    source = config.data.dir or config.data.source
    if parts is None:
        return f"{source}, not here yet: `jaxvalues data CONFIG` fetches it"
    reported = ", ".join(f"{split.name} {len(split):,}" for split in parts.reported) or "nothing"
    return f"{source}: {sizes.format(len(parts.training), len(parts.held_out))}; reported: {reported}"


def _takes(config: Config, network: Network, rows: int) -> Iterator[Row]:
    """Estimates of work and memory."""
    for length in config.lengths:
        step, forward = work(network, config, length, rows)
        training = f"{_figure(step / 1e9)} GFLOP a training step, {_figure(forward / 1e9)} to predict one row"
        asking = f"{_figure(forward / 1e9)} GFLOP to predict one row, besides what branches from it"
        yield f"work, length {length}", training if network.trains else asking
    mesh = abstract_mesh(config.mesh)
    devices = math.prod(mesh.shape.values())
    said = "the device" if devices == 1 else f"each of {devices} devices"
    kept, activations = kept_bytes(network, mesh), activation_bytes(network, config, rows) / devices
    if not network.trains:
        yield "memory", f"{kept / 2**20:,.0f} MiB of weights on {said}"
        return
    yield "memory", f"{kept / 2**20:,.0f} MiB of weights, gradients and Adam's moments on {said}"
    yield "", f"{activations / 2**20:,.0f} MiB there of activations of one micro-batch at the longest length (rough)"


def _compiled(config: Config, simulated: bool) -> str:
    """What the compiled training step takes."""
    memory = {name: f"{size / 2**20:,.0f} MiB" for name, size in step_memory(config).items()}
    where = f"compiled for {'simulated devices on the CPU' if simulated else 'the devices here'}"
    return f"{memory['arguments']} of arguments and {memory['temporaries']} of temporaries there, {where}"


def _named(tree: Any) -> str:
    """How many parameters each branch holds, e.g. `: embeddings 1.2 M, layers 10.6 M, head 7.7 k`."""
    sizes: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        names = [str(key.key) for key in path]
        branch = names[1] if names[0] == "encoder" and len(names) > 2 else names[0]
        sizes[branch] = sizes.get(branch, 0) + math.prod(leaf.shape)
    said = ", ".join(f"{branch} {_short(size)}" for branch, size in sizes.items())
    return f": {said}" if said else ""


def _short(size: int) -> str:
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= factor:
            return f"{size / factor:.1f} {letter}"
    return str(size)


def _figure(value: float) -> str:
    """Two digits at least: 0.12, 3.4, 56, 1,234."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _epochs(number: int) -> str:
    return "1 epoch" if number == 1 else f"{number} epochs"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
