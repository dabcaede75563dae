"""Finished runs as the columns of an ensemble: reading, checks against the data, and joining the folds of a system.

A column holds the predictions of one system, for held-out arguments and for the reported splits. Runs that differ only
in `data.fold` are one system. Each of these runs predicts the fold that it did not train on; together their held-out
predictions cover the arguments of all these folds (out-of-fold predictions). On a reported split, the column is the
mean probability of the runs.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvalues.config import Config, DataConfig
from jaxvalues.config.reading import entry, read_json, text_problem
from jaxvalues.data.arguments import Split
from jaxvalues.data.held_out import HELD_OUT, Parts, load_parts
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import ConfigError, UserError, short
from jaxvalues.evaluation.combine import mean
from jaxvalues.evaluation.coverage import read_missing
from jaxvalues.evaluation.predictions import Logits, read_logits
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.manifest import check_manifest
from jaxvalues.run.provenance import EARLIER_CUT, checksum, is_earlier_cut


class Run(NamedTuple):
    """A finished run and its data, loaded again."""

    folder: RunFolder
    config: Config
    parts: Parts


class Column(NamedTuple):
    """One system: its name, its folders, all its runs, and its predictions."""

    name: str
    folders: tuple[RunFolder, ...]
    runs: tuple[Run, ...]
    held_out: Logits
    reported: dict[str, np.ndarray]
    """Logits [n, C] of each reported split, in file order."""
    missing: dict[str, np.ndarray]
    """[n, C] of the held-out part and of each reported split: where some run has no answer."""


def read_columns(paths: Sequence[str | Path], dir: str | Path | None = None) -> list[Column]:
    """The columns of finished runs, in the given order. The folder of an ensemble is one column.

    `dir` is the folder of the data, if it has moved. Raises UserError for a folder without a finished run, and for data
    that differs from the data of a run; ConfigError for runs that cannot be combined.
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
    """Read a single run and its data. Raises UserError if the data differs from what the run was trained with."""
    folder = RunFolder.finished(folder.path, tables=True)
    if not folder.task.has_categories:
        raise ConfigError(
            f"{folder.path} has data.task {folder.task.name}, but only runs of the task values can be combined"
        )
    config = folder.config([] if dir is None else [f"data.dir={json.dumps(str(dir))}"])
    parts = load(config.data)
    folder.scores()  # which the table shows: raises UserError where they cannot be read
    made_with, data = folder.environment(), {name: checksum(split) for name, split in parts.by_name.items()}
    for name, digest in data.items():
        if digest != made_with["data"].get(name):
            if is_earlier_cut(config, made_with, data):
                raise UserError(f"{folder.path} has {EARLIER_CUT}: train it again")
            raise UserError(
                f"{folder.path} was trained with other data than {config.data.dir or config.data.source}: the part "
                f"{name} differs; give the folder of its data as --dir"
            )
    return Run(folder, config, parts)


def leaves(folder: RunFolder, within: tuple[str, ...] = ()) -> list[RunFolder]:
    """The single runs of a folder: the run itself, or those of an ensemble, which may contain ensembles.

    `within` are the ensembles that contain this one. Raises UserError for a faulty ensemble.json.
    """
    if not folder.is_ensemble:
        return [folder]
    if not folder.is_finished:
        raise UserError(f"{folder.path} holds an ensemble that is not finished (no scores.json): run its command again")
    check_manifest(folder.path)
    place, file = os.path.realpath(folder.path), folder.path / "ensemble.json"
    if place in within:
        raise UserError(f"{file}: names an ensemble that holds this one")
    found = []
    for system in entry(read_json(file, "the runs of an ensemble"), "systems", list, file):
        for path in entry(system, "folders", list, file, "a list of folders for each of its `systems`"):
            if not isinstance(path, str) or text_problem(path):
                raise UserError(f"{file}: `folders` names {short(path)}, expected the folder of a run")
            found += leaves(RunFolder(folder.path / path), (*within, place))
    if not found:
        raise UserError(f"{file}: names no runs")
    return found


def system_key(config: Config, weights: str | None) -> str:
    """A key that the runs of one system share: all settings that affect results, except the fold."""
    data = config.data.model_copy(update={"fold": None})
    return json.dumps([config.model_copy(update={"data": data}).decisive(), weights], sort_keys=True)


def system_name(config: Config) -> str:
    return f"{config.name}-seed{config.seed}"


def check_different_folds(system: Iterable[tuple[str, Config]]) -> None:
    """Raise ConfigError unless the runs of one system, as (name, config), hold out different folds."""
    held: dict[int | None, str] = {}
    for name, config in system:
        if config.data.fold in held:
            raise ConfigError(
                f"{held[config.data.fold]} and {name} are the same run: an ensemble needs runs that differ, for "
                "example in their seed"
            )
        held[config.data.fold] = name


def check_same_data(runs: Iterable[tuple[str, Parts]]) -> None:
    """Raise ConfigError unless all runs, as (name, parts), have the same reported splits, arguments and labels."""
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
    """The IDs that every system has held-out predictions for. Decisions are tuned on these arguments only.

    So every prediction that is used comes from a run that was not trained on the argument. `held_out` maps the name of
    a system to its IDs. Raises ConfigError if no ID is shared.
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
    """Read the predictions of `folders`: the runs of a system, or one ensemble of `runs`."""
    read = [_read(folder, HELD_OUT) for folder in folders]
    held_out = Logits(tuple(id for one in read for id in one.ids), np.concatenate([one.values for one in read]))
    known = {id for run in runs for id in run.parts.held_out.ids}
    if stranger := next((id for id in held_out.ids if id not in known), None):
        raise UserError(
            f"the held-out predictions of {name} contain the argument {stranger}, which it does not hold out"
        )
    absent = [_missing(folder, HELD_OUT, one.ids) for folder, one in zip(folders, read, strict=True)]
    missing = {HELD_OUT: np.concatenate(absent)}
    reported = {}
    for split in runs[0].parts.reported:
        predictions = [_read(folder, split.name) for folder in folders]
        for folder, one in zip(folders, predictions, strict=True):
            if one.ids != split.ids:
                raise UserError(f"{folder.path}: logits-{split.name}.tsv does not have the arguments of the split")
        reported[split.name] = mean(np.stack([one.values for one in predictions]))
        missing[split.name] = np.any([_missing(folder, split.name, split.ids) for folder in folders], axis=0)
    return Column(name, tuple(folders), tuple(runs), held_out, reported, missing)


def _missing(folder: RunFolder, part: str, ids: Sequence[str]) -> np.ndarray:
    return read_missing(folder.path / f"missing-{part}.tsv", ids, CATEGORIES)


def _read(folder: RunFolder, part: str) -> Logits:
    path = folder.path / f"logits-{part}.tsv"
    if not path.is_file() and not (folder.path / f"probabilities-{part}.tsv").is_file():
        raise UserError(
            f"{folder.path} has no {path.name}, which an ensemble needs; imported runs and runs of earlier versions "
            "lack it, so train the run again"
        )
    return read_logits(path)
