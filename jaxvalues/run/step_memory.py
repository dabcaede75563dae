"""The memory of a compiled training step, from the compiler and without weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import jax
from jax.extend.backend import clear_backends
from rich.console import Console

from jaxvalues.config import Config, load_config, parse_config, runs_of
from jaxvalues.config.trees import apply_override
from jaxvalues.errors import ConfigError
from jaxvalues.run.ahead import abstract_batch, abstract_run
from jaxvalues.run.base import find_base, find_tokenizer
from jaxvalues.run.batches import training_batches
from jaxvalues.run.console import RunConsole
from jaxvalues.run.outline import outline
from jaxvalues.run.resolve import resolve
from jaxvalues.run.state import training_stages
from jaxvalues.run.system import Weights, build_system
from jaxvalues.training.sharding import abstract_mesh, make_mesh


def step_memory(config: str | Path | Config, overrides: Sequence[str] = ()) -> dict[str, int]:
    """Bytes on each device of the compiled training step, at the longest length that the data have.

    `arguments` are weights, moments and the batch; `temporaries` is what the step needs besides, gradients included.
    `config` is a path or a Config, `overrides` a list of "key=value". The devices of the mesh must exist;
    `simulate_devices` makes some on CPU. Weights are neither read nor made. For a config of several runs, the first is
    compiled. Raises ConfigError
    where nothing trains, and for what a run would refuse.
    """
    if isinstance(config, Config):
        tree = config.model_dump(mode="json")
        for override in overrides:
            apply_override(tree, override)
        config = parse_config(tree)
    else:
        config = load_config(config, tuple(overrides))
    config = runs_of(config)[0]
    whole = config.tuning.model_copy(update={"reuse_features": False})  # stored features would have to be computed
    config, quiet = resolve(config.model_copy(update={"tuning": whole})), RunConsole(Console(quiet=True))
    _, parts, texts = outline(config)
    if parts is None:
        raise ConfigError("the data are not here yet: `jaxvalues data CONFIG` fetches them")
    base = find_base(config.model, config.seed)
    tokenizer = find_tokenizer(config, base, parts.full_training, texts)
    system = build_system(config, base, tokenizer, make_mesh(config.mesh), training=parts.training)
    if not system.network.trains:
        raise ConfigError(f"tuning.method {config.tuning.method} trains nothing, so there is no training step")
    batches = training_batches(system, parts.training, quiet)
    stage = training_stages(system, batches.steps_per_epoch, parts.training.labels)[-1]
    batch = max(batches.one_of_each_length(), key=lambda one: one["input_ids"].shape[1])
    state, frozen = abstract_run(system)
    placed = abstract_batch(system, Weights(frozen, state.trainable), batch)
    compiled = system.train_step.jitted.lower(state, frozen, placed, stage.hyper).compile()
    analysis = compiled.memory_analysis()
    return {"arguments": analysis.argument_size_in_bytes, "temporaries": analysis.temp_size_in_bytes}


def simulate_devices(config: Config) -> bool:
    """Where the mesh of a config has more devices than there are here: as many simulated ones on the CPU, for what only
    compiles. Arrays made before are lost. Returns whether it did."""
    devices = math.prod(abstract_mesh(config.mesh).shape.values())
    if devices <= jax.device_count():
        return False
    clear_backends()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    return True
