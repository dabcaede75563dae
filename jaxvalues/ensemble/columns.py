"""Finished runs as the columns of an ensemble: read, checked against their data, and the folds of a system joined.

A column is one system's predictions: of arguments it was not trained on, and of the splits that are reported. Runs that
differ in nothing but `data.fold` are one system. Each of them was trained on the folds that it did not hold out, so its
held-out predictions are those of one fold, and together they cover all the arguments whose fold is there (out-of-fold
predictions). On a reported split the column is their mean probability.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvalues.config import Config, DataConfig
from jaxvalues.data.arguments import Split
from jaxvalues.data.held_out import HELD_OUT, Parts, load_parts
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.combine import mean
from jaxvalues.evaluation.predictions import Predictions, read_predictions
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.provenance import checksum


class Run(NamedTuple):
    """A finished run, and the arguments it was made with, loaded again."""

    folder: RunFolder
    config: Config
    parts: Parts


class Column(NamedTuple):
    """One system: its name, its folders, every run behind it, and its predictions."""

    name: str
    folders: tuple[RunFolder, ...]
    runs: tuple[Run, ...]
    held_out: Predictions
    reported: dict[str, np.ndarray]
    """Probabilities [n, C] of each reported split, in file order."""


def read_columns(paths: Sequence[str | Path], dir: str | Path | None = None) -> list[Column]:
    """The columns of finished runs, in the order given; the folder of an ensemble is one column by itself.

    `dir` is where the data lies, if it is not where the runs say. Raises UserError for a folder that holds no finished
    run and for data that is not what a run was made with; ConfigError for runs that do not belong together.
    """
    load = functools.cache(load_parts)
    groups: dict[str, list[tuple[RunFolder, list[Run]]]] = {}
    for folder in map(RunFolder, paths):
        runs = [read_run(leaf, dir, load) for leaf in leaves(folder)]
        key = str(folder.path) if folder.is_ensemble else system_key(runs[0].config, folder.environment()["base"])
        groups.setdefault(key, []).append((folder, runs))
    columns = []
    for group in groups.values():
        folders, runs = [folder for folder, _ in group], [run for _, runs in group for run in runs]
        is_system = not folders[0].is_ensemble
        if is_system:
            check_different_folds((str(run.folder.path), run.config) for run in runs)
        name = system_name(runs[0].config) if is_system else str(folders[0].path)
        if name in {column.name for column in columns}:
            name = str(folders[0].path)
        columns.append(_column(name, folders, runs))
    check_same_data((str(run.folder.path), run.parts) for column in columns for run in column.runs)
    return columns


def read_run(folder: RunFolder, dir: str | Path | None, load: Callable[[DataConfig], Parts]) -> Run:
    """A run that is no ensemble, with its data. Raises UserError if the data is not what it was made with."""
    folder = RunFolder.finished(folder.path)
    if not folder.task.has_categories:
        raise ConfigError(
            f"{folder.path} is of data.task {folder.task.name}: only runs of the task values are combined"
        )
    config = folder.config([] if dir is None else [f"data.dir={json.dumps(str(dir))}"])
    parts = load(config.data)
    made_with = folder.environment()["data"]
    for name, split in parts.by_name.items():
        if checksum(split) != made_with[name]:
            raise UserError(
                f"{folder.path} was made with other data than {config.data.dir or config.data.source}: its part "
                f"{name} differs; give the folder of its data as --dir"
            )
    return Run(folder, config, parts)


def leaves(folder: RunFolder) -> list[RunFolder]:
    """The single runs behind a folder: itself, or those of an ensemble, which may be of ensembles."""
    if not folder.is_ensemble:
        return [folder]
    if not folder.is_finished:
        raise UserError(f"{folder.path} holds an ensemble that is not finished (no scores.json): make it again")
    systems = json.loads((folder.path / "ensemble.json").read_text(encoding="utf-8"))["systems"]
    return [leaf for system in systems for path in system["folders"] for leaf in leaves(RunFolder(folder.path / path))]


def system_key(config: Config, weights: str | None) -> str:
    """What the runs of one system agree in: everything that decides their numbers but the fold."""
    data = config.data.model_copy(update={"fold": None})
    return json.dumps([config.model_copy(update={"data": data}).decisive(), weights], sort_keys=True)


def system_name(config: Config) -> str:
    return f"{config.name}-seed{config.seed}"


def check_different_folds(system: Iterable[tuple[str, Config]]) -> None:
    """Raise ConfigError unless the runs of one system, each with its name, hold out different folds."""
    held: dict[int | None, str] = {}
    for name, config in system:
        if config.data.fold in held:
            raise ConfigError(
                f"{held[config.data.fold]} and {name} are the same run: an ensemble needs runs that differ, if only in "
                "their seed"
            )
        held[config.data.fold] = name


def check_same_data(runs: Iterable[tuple[str, Parts]]) -> None:
    """Raise ConfigError unless runs, by name, report the same splits and read the same arguments and labels."""
    (first, parts), *others = runs
    seen = {split.name: checksum(split) for split in _splits(parts)}
    reported = [split.name for split in parts.reported]
    for name, parts in others:
        there = [split.name for split in parts.reported]
        if set(reported) != set(there):
            raise ConfigError(
                f"{first} reports {', '.join(reported)}, but {name} reports {', '.join(there)}: an ensemble needs runs "
                "with the same data.report"
            )
        for split in _splits(parts):
            if seen.setdefault(split.name, checksum(split)) != checksum(split):
                raise ConfigError(f"{first} and {name} read different data: their split {split.name} differs")


def shared_arguments(held_out: Mapping[str, Sequence[str]]) -> set[str]:
    """The IDs that every system has held-out predictions for: all that a decision may be tuned on.

    What one system holds out another may be trained on, and then the other has no held-out prediction of it. So nothing
    in this set was trained on by the run whose prediction of it is used. `held_out` maps a system's name to the IDs it
    has. Raises ConfigError if there are none.
    """
    shared = set.intersection(*map(set, held_out.values()))
    if not shared:
        raise ConfigError(
            f"no argument is held out by all of {', '.join(held_out)}, so there is none to tune a decision on: train "
            "them with the same data.held_out, or all of them with data.folds and every fold"
        )
    return shared


def _splits(parts: Parts) -> list[Split]:
    return list({split.name: split for split in (parts.full_training, parts.pool, *parts.reported)}.values())


def _column(name: str, folders: Sequence[RunFolder], runs: Sequence[Run]) -> Column:
    """Read the predictions of the folders, which are a system's runs, or one ensemble of `runs`."""
    read = [_read(folder, HELD_OUT) for folder in folders]
    held_out = Predictions(
        tuple(id for one in read for id in one.ids), np.concatenate([one.probabilities for one in read])
    )
    known = {id for run in runs for id in run.parts.held_out.ids}
    if stranger := next((id for id in held_out.ids if id not in known), None):
        raise UserError(f"the held-out predictions of {name} name the argument {stranger}, which it does not hold out")
    reported = {}
    for split in runs[0].parts.reported:
        predictions = [_read(folder, split.name) for folder in folders]
        for folder, one in zip(folders, predictions, strict=True):
            if one.ids != split.ids:
                raise UserError(
                    f"{folder.path}: probabilities-{split.name}.tsv is not about the arguments of the split"
                )
        reported[split.name] = mean(np.stack([one.probabilities for one in predictions]))
    return Column(name, tuple(folders), tuple(runs), held_out, reported)


def _read(folder: RunFolder, part: str) -> Predictions:
    path = folder.path / f"probabilities-{part}.tsv"
    if not path.is_file():
        raise UserError(
            f"{folder.path} has no {path.name}, as runs that were imported or trained by an earlier version: an "
            "ensemble is made from it, so train the run again"
        )
    return read_predictions(path)
