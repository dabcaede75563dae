"""Training of one run, or of several runs one after another and their combination."""

from __future__ import annotations

import functools
import gc
from collections.abc import Sequence

from rich.console import Console

from jaxvalues.config import Config, EnsembleConfig, runs_of
from jaxvalues.data.held_out import load_parts
from jaxvalues.data.task import TASKS
from jaxvalues.ensemble.columns import (
    check_different_folds,
    check_same_data,
    read_columns,
    shared_arguments,
    system_key,
    system_name,
)
from jaxvalues.ensemble.combination import check_folder, combine, write
from jaxvalues.errors import ConfigError, counted, name_list
from jaxvalues.evaluation.official import Scores
from jaxvalues.formulations import load_texts
from jaxvalues.remote.store import STORE
from jaxvalues.run.base import find_base, find_tokenizer
from jaxvalues.run.console import RunConsole
from jaxvalues.run.dry_run import dry_run
from jaxvalues.run.process import start_process
from jaxvalues.run.provenance import changes, check_run_format, read_run_config
from jaxvalues.run.remote import sharing_answers
from jaxvalues.run.resolve import resolve, with_one_dtype
from jaxvalues.run.system import build_system
from jaxvalues.run.train import train as train_run
from jaxvalues.training.compilation import Programs
from jaxvalues.training.metrics import check_logging
from jaxvalues.training.processes import barrier
from jaxvalues.training.sharding import make_mesh


def train(config: Config, console: Console | None = None) -> dict[str, Scores]:
    """Train what a config asks for: one run, or several one after another and their combination.

    Each run has its own folder in `config.folder`. The same command resumes an unfinished run, skips finished
    ones, and with more seeds or members trains only the new runs. The combination is computed each time, in seconds.
    Returns {split: Scores} of the run or the ensemble. Raises UserError, or ConfigError for errors in the config,
    before training if possible.
    """
    check_logging(config)
    if not config.is_ensemble:
        return train_run(config, console)
    run_console, programs = start_process(config, console), Programs()
    runs = with_one_dtype(runs_of(config))
    check_folder(config.folder)
    check_runs(runs, run_console, programs)
    brief = RunConsole(run_console.console, brief=True)
    for number, one in enumerate(runs, start=1):
        run_console.print(f"\nrun {number} of {len(runs)}: {one.folder.name}")
        train_run(sharing_answers(one, config.folder / STORE), programs=programs, run_console=brief)
        gc.collect()  # frees the arrays of the run before the next one starts
    run_console.print(f"\ncompiled {counted(len(programs), 'program')} for {counted(len(runs), 'run')}")
    barrier("the runs of an ensemble are written")
    method = (config.ensemble or EnsembleConfig()).method
    combination = combine(read_columns([one.folder for one in runs]), method)
    return write(combination, config.folder, run_console, config.decision, resolve(config))


def check(config: Config, console: Console | None = None) -> None:
    """Check all that can be checked of what `train` would do; nothing is written, not even compiled programs.

    Raises UserError (ConfigError for what the config says) as `train` does.
    """
    check_logging(config)
    quiet = config.runtime.model_copy(update={"compilation_cache": None})
    run_console = start_process(config.model_copy(update={"runtime": quiet}), console)
    runs = with_one_dtype(runs_of(config))
    if config.is_ensemble:
        check_folder(config.folder)
        check_runs(runs, run_console, Programs())
    for one in {one.name: one for one in reversed(runs)}.values():  # one run of each member
        dry_run(sharing_answers(one, config.folder / STORE), run_console)
    run_console.print("No problems found. Nothing was written; without --dry-run the same command starts.")


def check_runs(runs: Sequence[Config], run_console: RunConsole, programs: Programs) -> None:
    """Check all runs and their combination before the first run is trained. Raises UserError or ConfigError.

    Loads data and tokenizers, reads model configs and builds the network of every member, but computes nothing.
    """
    load = functools.cache(load_parts)
    systems: dict[str, list[tuple[str, Config]]] = {}
    held_out: dict[str, list[str]] = {}
    checked = set()
    for one in map(resolve, runs):
        systems.setdefault(system_key(one, one.model.path), []).append((one.folder.name, one))
        parts = load(one.data)
        held_out.setdefault(system_name(one), []).extend(parts.held_out.ids)
        if (one.folder / "config.yaml").exists():
            check_run_format(one.folder)
            if changed := changes(read_run_config(one.folder), one):
                raise ConfigError(
                    f"{one.folder} holds a run with other settings ({name_list(changed)}): give another "
                    "output=FOLDER, or remove it"
                )
        if one.name not in checked:
            checked.add(one.name)
            if one.model.endpoint is not None:
                load_texts(one.formulation, TASKS[one.data.task])
                continue
            base = find_base(one.model, one.start_seed)
            template = load_texts(one.formulation, TASKS[one.data.task])
            tokenizer = find_tokenizer(one, base, parts.full_training, template)
            mesh = make_mesh(one.mesh)
            announce = run_console.compiled
            build_system(one, base, tokenizer, mesh, announce=announce, programs=programs, training=parts.training)
    for system in systems.values():
        check_different_folds(system)
    check_same_data((one.name, load(one.data)) for one in runs)
    shared_arguments(held_out)
