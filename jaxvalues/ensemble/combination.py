"""Combining systems: their predictions are combined, the decision is tuned, and the results are written.

Thresholds and the weights of a stack are fitted on held-out predictions only: on arguments that every system held out,
each predicted by a run that was not trained on it. The best step of a run was chosen there too, so held-out scores are
slightly optimistic. Reported splits are not used for any choice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from jaxvalues.config import Config, DecisionConfig, check_no_url
from jaxvalues.config.writing import check_writable, write_json
from jaxvalues.data.arguments import Split
from jaxvalues.data.conclusions import group_by_conclusion
from jaxvalues.data.held_out import HELD_OUT, cut_folds
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.ensemble.columns import Column, Run, read_columns, shared_arguments, system_key
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.combine import StackingModel, cross_fit, fit_stacking, mean
from jaxvalues.evaluation.coverage import note
from jaxvalues.evaluation.official import Scores
from jaxvalues.evaluation.report_table import render_members
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.holds import ENSEMBLE, holds
from jaxvalues.run.outcome import finish
from jaxvalues.run.prediction import Predicted
from jaxvalues.run.provenance import checksum, describe_process
from jaxvalues.training.processes import is_main

Method = Literal["mean", "stack"]

STACK_FOLDS = 5

_FAR_APART = 3.0  # logits: a factor of 20 between small probabilities


def combine_runs(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    method: Method = "mean",
    dir: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Scores]:
    """Combine finished runs and ensembles into the folder `out`. The config of the first run sets the decision.

    `dir` is the folder of the data, if it has moved. Returns {split: Scores}. Raises UserError or ConfigError for runs
    that cannot be combined, before anything is written.
    """
    if len(runs) < 2:
        raise ConfigError("an ensemble needs at least two runs")
    check_folder(Path(out))
    if (Path(out) / "config.yaml").exists():
        raise ConfigError(f"{out} holds an ensemble of `jaxvalues train`: give another folder")
    check_writable(out, "the folder")
    places = [os.path.realpath(place) for place in (*runs, out)]
    if twice := next((place for place in places if places.count(place) > 1), None):
        raise ConfigError(f"{twice} is given twice")
    columns = read_columns(runs, dir)
    run_console = RunConsole(console or Console())
    return write(combine(columns, method), Path(out), run_console, columns[0].runs[0].config.decision)


def check_folder(folder: Path) -> None:
    """Raise ConfigError if `folder` holds what an ensemble would overwrite (see `holds`), or is a URL."""
    check_no_url("the folder to write", folder)
    if (what := holds(folder)) not in (None, ENSEMBLE):
        raise ConfigError(f"{folder} holds {what}: give the ensemble another folder")


@dataclass(frozen=True, eq=False)
class Combination:
    """Several systems combined: the logits, and how they were computed."""

    columns: list[Column]
    method: Method
    stack: StackingModel | None
    held_out: Split
    """The arguments it was fitted and tuned on: those that every system has held-out predictions for."""
    logits: dict[str, np.ndarray]
    """[n, C] of `held_out` and of every reported split."""
    missing: dict[str, np.ndarray]
    """[n, C] of the same: where some system has no answer."""

    def predicted(self, split: Split, part: str) -> Predicted:
        """What is predicted of a part, whose arguments are in `split`."""
        missing = self.missing[part]
        return Predicted(split, self.logits[part], missing=missing if missing.any() else None)

    @property
    def how(self) -> str:
        """A description of the combination for the decision and the screen."""
        systems = f"{len(self.columns)} systems" if len(self.columns) > 1 else "one system"
        return f"{self.method} of {systems} ({sum(len(column.runs) for column in self.columns)} runs)"


def combine(columns: list[Column], method: Method) -> Combination:
    """Combine systems: their mean probability, or a stack of logistic regressions.

    Thresholds are tuned on the arguments that every system held out (see `shared_arguments`). There, a system with
    folds predicts with a single run. On a reported split it predicts with the mean of its runs, which is less extreme,
    so thresholds fit less well there, most with few systems. The thresholds of a stack are tuned on logits that
    are cross-fitted by conclusion, so that weights and thresholds are not fitted on the same predictions. Raises
    ConfigError if no argument is held out by every system.
    """
    shared = shared_arguments({column.name: column.held_out.ids for column in columns})
    pool = columns[0].runs[0].parts.pool
    held_out = pool.subset(row for row, id in enumerate(pool.ids) if id in shared)
    rows = [_rows(column, held_out) for column in columns]
    tuned_on = np.stack([column.held_out.values[of] for column, of in zip(columns, rows, strict=True)])
    stack = None
    if method == "stack":
        logits = cross_fit(tuned_on, held_out.labels, _stack_folds(held_out))
        stack = fit_stacking(tuned_on, held_out.labels)
    else:
        logits = mean(tuned_on)
    blend = mean if stack is None else stack
    reported = {name: blend(np.stack([one.reported[name] for one in columns])) for name in columns[0].reported}
    absent = {name: np.any([one.missing[name] for one in columns], axis=0) for name in reported}
    absent[HELD_OUT] = np.any([one.missing[HELD_OUT][of] for one, of in zip(columns, rows, strict=True)], axis=0)
    return Combination(columns, method, stack, held_out, {HELD_OUT: logits, **reported}, absent)


def write(
    combination: Combination,
    path: Path,
    run_console: RunConsole,
    decision: DecisionConfig,
    config: Config | None = None,
) -> dict[str, Scores]:
    """Tune the decision and write the folder of an ensemble. `config` is that of `jaxvalues train`, if there is one."""
    folder, columns = RunFolder(path), combination.columns
    runs = [run for column in columns for run in column.runs]
    parts = runs[0].parts
    if is_main():
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"the folder {path} cannot be created ({error.strerror})") from None
        (path / "scores.json").unlink(missing_ok=True)  # of an earlier combination, until the files agree again
        write_json(path / "ensemble.json", _description(combination, path))
        data = {split.name: checksum(split) for split in (parts.full_training, *parts.reported)}
        fingerprint = None if config is None else config.fingerprint()
        write_json(path / "environment.json", describe_process() | {"config": fingerprint, "base": None, "data": data})
        if config is not None:
            folder.write_config(config)

    predicted = [combination.predicted(split, split.name) for split in parts.reported]
    held_out = combination.predicted(combination.held_out, HELD_OUT)
    outcome = finish(folder, decision, held_out, predicted, how=f"{combination.how}, {{}}")

    sizes = {column.name: len(column.held_out.ids) for column in columns}
    if set(sizes.values()) != {len(combination.held_out)}:
        there = ", ".join(f"{name} {size}" for name, size in sizes.items())
        run_console.print(
            f"the systems hold out different arguments ({there}): decisions are tuned on the "
            f"{len(combination.held_out)} that all of them hold out"
        )
    if combination.method == "mean" and (apart := _bias_apart(runs)):
        run_console.print(apart)
    run_console.print(f"{outcome.decision.how}: {outcome.decision.span}\n")
    f1 = {name: one.official_f1 for name, one in {HELD_OUT: outcome.held_out, **outcome.scores}.items()}
    render_members(_members(runs), f1, run_console.console)
    run_console.console.print()
    members = {run.folder.path.name: run.folder.scores() for run in runs}
    if said := note({f"{name}, {part}": one for name, parts in members.items() for part, one in parts.items()}):
        run_console.print(said)
    run_console.scores(outcome.reported, any(run.config.model.config is not None for run in runs), path)
    return outcome.scores


def _bias_apart(runs: Sequence[Run]) -> str | None:
    """One sentence where a mean probability would follow some runs alone, since the others' are all small."""
    decisions = sorted(
        ((run.folder.decision(), run.folder.path.name) for run in runs), key=lambda one: one[0].thresholds.mean()
    )
    (low, lowest), (high, highest) = decisions[0], decisions[-1]
    if high.thresholds.mean() - low.thresholds.mean() < _FAR_APART:
        return None
    return (
        f"the thresholds of {lowest} ({low.span}) and {highest} ({high.span}) lie far apart: the mean probability "
        "follows the runs with the higher ones, a stack (--method stack) weighs all"
    )


def _description(combination: Combination, path: Path) -> dict[str, Any]:
    """The content of ensemble.json, with folders relative to it."""
    systems = [
        {"name": column.name, "folders": [os.path.relpath(folder.path, path) for folder in column.folders]}
        for column in combination.columns
    ]
    stack = combination.stack and {
        "centre": combination.stack.centre.tolist(),
        "categories": {
            name: {"weights": weights.tolist(), "bias": float(bias)}
            for name, weights, bias in zip(CATEGORIES, combination.stack.weights, combination.stack.bias, strict=True)
        },
    }
    return {"method": combination.method, "systems": systems, "stack": stack}


def _members(runs: Sequence[Run]) -> dict[str, dict[str, list[float]]]:
    """{member: {part: official F1 of its runs}}. Runs that differ only in seeds and fold are one member."""
    kinds: dict[str, list[Run]] = {}
    for run in runs:
        config = run.config.model_copy(update={"seed": 0, "init_seed": None})
        kinds.setdefault(config.name + system_key(config, config.model.path), []).append(run)
    names = [kind[0].config.name for kind in kinds.values()]
    members: dict[str, dict[str, list[float]]] = {}
    for name, kind in zip(names, kinds.values(), strict=True):
        parts: dict[str, list[float]] = {}
        for run in kind:
            for part, one in {HELD_OUT: run.folder.held_out_scores(), **run.folder.scores()}.items():
                parts.setdefault(part, []).append(one.official_f1)
        members[name if names.count(name) == 1 else str(kind[0].folder.path)] = parts
    return members


def _rows(column: Column, held_out: Split) -> list[int]:
    """The rows that the arguments of `held_out` have in a system's predictions."""
    row = {id: number for number, id in enumerate(column.held_out.ids)}
    return [row[id] for id in held_out.ids]


def _stack_folds(held_out: Split) -> np.ndarray:
    _, sizes = group_by_conclusion(held_out.arguments)
    conclusions = len(sizes)
    if conclusions < STACK_FOLDS:
        raise ConfigError(
            f"a stack needs held-out arguments with at least {STACK_FOLDS} conclusions, but there are "
            f"{conclusions}: use the method mean"
        )
    return cut_folds(held_out, STACK_FOLDS)
