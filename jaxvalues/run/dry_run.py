"""`jaxvalues train --dry-run`: everything that can be checked before a run starts. Writes nothing, compiles nothing."""

from __future__ import annotations

from jaxvalues.config import Config
from jaxvalues.config.writing import check_writable
from jaxvalues.data.held_out import HELD_OUT, load_parts
from jaxvalues.data.task import TASKS
from jaxvalues.formulations import load_texts
from jaxvalues.run.base import find_base, find_tokenizer
from jaxvalues.run.batches import training_batches
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import NEW, RunFolder, RunRecord
from jaxvalues.run.prediction import encode
from jaxvalues.run.provenance import describe_environment
from jaxvalues.run.remote_plan import dry_run_remote
from jaxvalues.run.resolve import resolve
from jaxvalues.run.system import build_system
from jaxvalues.run.warm_start import find_warm_start
from jaxvalues.training.sharding import make_mesh, place_on


def dry_run(config: Config, run_console: RunConsole) -> None:
    """Check what `train` checks before its first step: data, tokenizer, network, weights, devices, and the run folder.

    Weights are read (and downloaded where they are on the hub) and thrown away. Raises UserError as `train` does.
    """
    config = resolve(config)
    if config.model.endpoint is not None:
        dry_run_remote(config, run_console)
        return
    parts = load_parts(config.data)
    base = find_base(config.model, config.start_seed)
    texts = load_texts(config.formulation, TASKS[config.data.task])
    tokenizer = find_tokenizer(config, base, parts.full_training, texts)
    mesh = make_mesh(config.mesh)
    system = build_system(config, base, tokenizer, mesh, training=parts.training)
    if system.shortlist is not None:
        system.shortlist.check((parts.held_out, *parts.reported))
    training_batches(system, parts.training, run_console)
    encode(system, parts.held_out, run_console, HELD_OUT)
    for split in parts.reported:
        encode(system, split, run_console)

    warm_start = find_warm_start(system, run_console)
    environment = describe_environment(config, base, parts, tokenizer) | warm_start.record
    record = RunRecord(environment, system.hf_config, tokenizer, system.texts)
    state = RunFolder(config.folder, TASKS[config.data.task]).check(config, record)
    if state == NEW:
        check_writable(config.folder, "output: the run folder")
    if not base.is_random:
        system.network.read(base.folder, place_on(mesh))
    run_console.print(f"{config.folder}: {state}")
