"""From the finished runs of a study to its results: intervals, tests, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvalues.config.trees import flat
from jaxvalues.data.arguments import Split
from jaxvalues.data.held_out import Parts, load_parts
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import UserError, counted, name_list
from jaxvalues.evaluation.coverage import note
from jaxvalues.evaluation.official import Scores
from jaxvalues.run.folder import RunFolder
from jaxvalues.statistics.counts import Counts
from jaxvalues.statistics.tests import holm
from jaxvalues.statistics.variance import split_counts
from jaxvalues.study.budget import Size
from jaxvalues.study.choice import choose, edges, extended, finished_trials
from jaxvalues.study.combined import PlannedCombination, combined_runs, in_a_sentence
from jaxvalues.study.combining import result_folder
from jaxvalues.study.crossed import (
    FEWEST_SIGNS,
    category_p,
    counts_of,
    difference_of,
    grid_of,
    interval_of,
    paired,
    place_of,
)
from jaxvalues.study.failures import failure_file
from jaxvalues.study.measured import read_measured
from jaxvalues.study.plan import Plan, in_words
from jaxvalues.study.reading import Truth, config_of, read_run, truths_of, why_left_out
from jaxvalues.study.results import ContrastResult, Failure, RunResult, StudyResults, SystemResult


def analyse(plan: Plan, sizes: Mapping[str, Size]) -> StudyResults:
    """The results of what is finished of a study, whose systems have these `sizes`. Trains nothing.

    Raises UserError where runs were made with other data than the others, or than there are here.
    """
    parts = load_parts(plan.first(next(iter(plan.systems))).data)
    reported = _reported(plan, parts)
    truths = truths_of(reported)
    systems = {name: _system(plan, name, sizes[name], truths) for name in plan.systems}
    systems |= {name: _combined(plan, name, sizes[name], truths) for name in plan.study.scientific.combined}
    _check_same_data(systems)
    contrasts = [one for name in truths for one in _contrasts(plan, systems, truths[name])]
    return StudyResults(
        study=plan.study,
        digest=plan.digest(),
        splits={name: truth.split for name, truth in truths.items()},
        categories=CATEGORIES,
        systems=systems,
        contrasts=tuple(contrasts),
        missing=tuple(_missing(plan, systems, reported)),
        notes=(*_notes(plan, systems), *_fewer_runs(plan, systems, contrasts), *_trained_together(systems)),
        environment=_environment(systems),
    )


def _reported(plan: Plan, parts: Parts) -> list[Split]:
    """The reported splits, in the order of the study file."""
    known = {split.name: split for split in parts.reported}
    if plan.held_out is not None:
        known[plan.held_out] = parts.held_out
    return [known[name] for name in plan.study.report if name in known]


def _system(plan: Plan, name: str, size: Size, truths: Mapping[str, Truth]) -> SystemResult:
    planned, added = plan.systems[name], extended(plan)
    trials = plan.trials(name, added)
    chosen = choose(plan, name, added)
    runs = [] if chosen is None else plan.runs(name, chosen)
    done = [one for one in runs if RunFolder(one.config.folder).is_finished]
    finished = [read_run(one.config.folder, one.coordinates, truths, plan.held_out) for one in done]
    failures = [
        Failure(one.coordinates, file.read_text(encoding="utf-8").splitlines()[0])
        for one in (*trials, *runs)
        if (file := failure_file(one.config.folder)).is_file()
    ]
    return SystemResult(
        changes=planned.changes,
        chosen=chosen or {},
        trials=tuple(finished_trials(plan, name, added)),
        edges=tuple(edges(plan.ranges(name, added), chosen or {})),
        failures=tuple(failures),
        **_found(plan, name, size, finished, truths),
    )


def _combined(plan: Plan, name: str, size: Size, truths: Mapping[str, Truth]) -> SystemResult:
    """A system that combines runs of another one, which chose the nuisance keys."""
    of = plan.study.scientific.combined[name].of
    chosen = choose(plan, of)
    planned = [] if chosen is None else combined_runs(plan, name, chosen)
    finished = [
        read_run(folder, one.coordinates, truths, plan.held_out, read_measured(one.folder))
        for one in planned
        if (folder := result_folder(one)) is not None
    ]
    failures = [
        Failure(coordinates, file.read_text(encoding="utf-8").splitlines()[0])
        for one in planned
        for coordinates, folder in _places(one)
        if (file := failure_file(folder)).is_file()
    ]
    return SystemResult(
        changes=plan.systems[of].changes,
        chosen=chosen or {},
        trials=(),
        edges=(),
        failures=tuple(failures),
        **_found(plan, name, size, finished, truths),
    )


def _places(one: PlannedCombination) -> list[tuple[Mapping[str, Any], Path]]:
    """(coordinates, folder) of a combined run, and of the members that it alone has."""
    own = [member for member in one.members if member.coordinates != one.coordinates]
    return [(one.coordinates, one.folder), *((member.coordinates, member.config.folder) for member in own)]


def _found(
    plan: Plan, name: str, size: Size, finished: Sequence[RunResult], truths: Mapping[str, Truth]
) -> dict[str, Any]:
    """The fields of a system that follow from its finished runs."""
    return {
        "name": name,
        "runs": tuple(finished),
        "trained_parameters": size.trained,
        "frozen_parameters": size.frozen,
        "training_flops": size.flops,
        "intervals": {split: interval_of(truth, finished) for split, truth in truths.items() if finished},
        "mean_category_intervals": {
            split: interval_of(truth, finished, "mean_category_f1") for split, truth in truths.items() if finished
        },
        "variance": _variance(plan, plan.repeated(name), finished, truths),
    }


def _variance(
    plan: Plan, repeated: Mapping[str, Sequence[Any]], runs: Sequence[RunResult], truths: Mapping[str, Truth]
) -> dict[str, Any]:
    """{split: where the variance comes from}, if every combination of the `repeated` keys is there."""
    keys = [key for key, values in repeated.items() if len(values) > 1]
    sizes = [len(repeated[key]) for key in keys]
    if not keys or len(runs) != math.prod(map(len, repeated.values())):
        return {}
    factors = [key.rpartition(".")[2] for key in keys]
    found = {}
    for split, truth in truths.items():
        counts = truth.counts(runs)
        shape = (*sizes, *counts.hits.shape[1:])
        shaped = Counts(counts.hits.reshape(shape), counts.predicted.reshape(shape), counts.true, counts.sizes)
        found[split] = split_counts(shaped, factors, plan.study.metric)
    return found


def _contrasts(plan: Plan, systems: Mapping[str, SystemResult], truth: Truth) -> list[ContrastResult]:
    """The contrasts of one split that have runs of both sides, with p adjusted over all that are declared (Holm).

    One that has no runs yet counts with the largest p there is.
    """
    compared = (_contrast(plan, systems[asked.a], systems[asked.b], truth) for asked in plan.contrasts)
    found = [one for one in compared if one is not None]
    unknown = [1.0] * (len(plan.contrasts) - len(found))
    adjusted = holm([*(one["p"] for one in found), *unknown])[: len(found)]
    return [ContrastResult(**one, p_adjusted=float(p)) for one, p in zip(found, adjusted, strict=True)]


def _contrast(plan: Plan, a: SystemResult, b: SystemResult, truth: Truth) -> dict[str, Any] | None:
    """The fields of a contrast but for its adjusted p; None without runs of the same coordinates."""
    figure, split = plan.study.metric, truth.split.name
    if (pair := paired(a, b, _shared_keys(plan, a.name, b.name))) is None:
        return None
    number = [len(pair.places)]
    counts_a, counts_b = counts_of(truth, pair.of_a, number), counts_of(truth, pair.of_b, number)
    differences = counts_a.figure(figure) - counts_b.figure(figure)
    categories_a, categories_b = (
        np.mean([_category_f1(one.scores[split]) for runs in side for one in runs], axis=0)
        for side in (pair.of_a, pair.of_b)
    )
    return {
        "a": a.name,
        "b": b.name,
        "split": split,
        "differences": dict(zip(map(", ".join, pair.places), differences.tolist(), strict=True)),
        "difference": float(differences.mean()),
        "category_differences": categories_a - categories_b,
        "category_p_adjusted": category_p(truth, pair),
        **difference_of(truth, pair, figure),
    }


def _shared_keys(plan: Plan, a: str, b: str) -> list[str]:
    """The repeated keys that two systems both have."""
    return [key for key in plan.repeated(a) if key in plan.repeated(b)]


def _category_f1(scores: Scores) -> np.ndarray:
    return np.array([np.nan if (f1 := scores.categories[name].f1) is None else f1 for name in CATEGORIES])


def _check_same_data(systems: Mapping[str, SystemResult]) -> None:
    """Raise UserError where runs were reported on other data than the others."""
    seen: dict[str, tuple[str, Path]] = {}
    for system in systems.values():
        for run in system.runs:
            for split, digest in RunFolder(run.folder).environment()["data"].items():
                if split not in run.decisions:
                    continue
                before, folder = seen.setdefault(split, (digest, run.folder))
                if before != digest:
                    raise UserError(
                        f"{run.folder} has other data than {folder}: {split} differs. Remove one of them, and run again"
                    )


def _missing(plan: Plan, systems: Mapping[str, SystemResult], reported: Sequence[Split]) -> list[str]:
    said = []
    for name, system in systems.items():
        planned, repeats = 0, math.prod(map(len, plan.repeated(name).values()))
        if name in plan.systems:
            planned = len(plan.trials(name, extended(plan)))
        else:
            said += _missing_members(plan, name)
        for kind, done, wanted in (("trial", len(system.trials), planned), ("run", len(system.runs), repeats)):
            if done < wanted:
                said.append(f"{name}: {done} of {counted(wanted, kind)} finished.")
        for failure in system.failures:
            said.append(f"{name}, {', '.join(in_words(failure.coordinates))}: failed: {failure.message}")
    return said + [f"{split.name}: {why}" for split in reported if (why := why_left_out(split)) is not None]


def _missing_members(plan: Plan, name: str) -> list[str]:
    """A sentence for each run of a combined system that waits for members."""
    chosen = choose(plan, plan.study.scientific.combined[name].of)
    waiting = [] if chosen is None else [one for one in combined_runs(plan, name, chosen) if not result_folder(one)]
    return [
        f"{one.label}: {len(one.members) - one.finished_members} of {len(one.members)} members are not finished."
        for one in waiting
        if one.how.combine != "halving" and 0 < one.finished_members < len(one.members)
    ]


def _notes(plan: Plan, systems: Mapping[str, SystemResult]) -> list[str]:
    study, notes = plan.study, [in_a_sentence(plan, name) for name in plan.study.scientific.combined]
    if plan.replication is not None:
        notes.append(plan.replication)
    for system in systems.values():
        still = [", ".join(in_words(run.repeated)) for run in system.runs if run.step == 0]
        if still and system.trained_parameters:
            notes.append(f"{system.name}: with {name_list(still)} no step was better than the untrained start.")
        for run in system.runs:
            if said := note({"held-out": run.held_out, **run.scores}):
                where = ", ".join(in_words(run.repeated))
                filled = "Intervals and tests give these questions the mean of their category."
                notes.append(f"{system.name}, {where}: {said} {filled}")
        for key in system.edges:
            notes.append(
                f"{system.name}: the best {key}, {system.chosen[key]}, lies on the edge of its range; a wider range "
                "may change the result."
            )
    repeats = min((len(system.runs) for system in systems.values() if system.runs), default=0)
    if 1 < repeats < FEWEST_SIGNS:
        notes.append(
            f"With {repeats} runs of a system, the test of signs beside the paired t cannot decide anything at 5 %."
        )
    if repeats == 1:
        notes.append("Some systems have one run: their differences say nothing about other seeds.")
    dtypes = {config_of(run.folder).model.dtype for system in systems.values() for run in system.runs}
    if len(dtypes) > 1 and not any("model.dtype" in flat(system.changes) for system in systems.values()):
        notes.append(f"Runs were computed in different dtypes: {name_list(sorted(dtypes))}; pin model.dtype.")
    if study.metric != "official_f1":
        notes.append(
            "Trials, differences and tests are of the mean category F1; the best step and the threshold of a run are "
            "chosen by the official F1."
        )
    return notes


def _fewer_runs(plan: Plan, systems: Mapping[str, SystemResult], contrasts: Sequence[ContrastResult]) -> list[str]:
    """A sentence for each contrast that leaves out runs which only one of its systems has."""
    compared = {(one.a, one.b): len(one.differences) for one in contrasts}
    said = []
    for (a, b), both in compared.items():
        shared = _shared_keys(plan, a, b)
        if any(len({place_of(run, shared) for run in systems[name].runs}) > both for name in (a, b)):
            whole = all(len(grid_of(systems[name].runs)[0]) == len(systems[name].runs) for name in (a, b))
            own = "all of its runs" if whole else "the largest whole grid of its runs"
            said.append(
                f"{a} less {b} is over the {counted(both, 'run')} that both have"
                + ("" if whole else " in a whole grid of the repeated keys")
                + f"; the figures of each system are over {own}."
            )
    return said


def _trained_together(systems: Mapping[str, SystemResult]) -> list[str]:
    """A sentence for each system of which several runs trained at once."""
    most = {name: max((run.together or 1 for run in system.runs), default=1) for name, system in systems.items()}
    return [
        f"{name}: up to {number} runs trained at once; the seconds of one are their time divided by their number, and "
        "the memory is that of all."
        for name, number in most.items()
        if number > 1
    ]


def _environment(systems: Mapping[str, SystemResult]) -> dict[str, Any]:
    """The versions and devices of the first finished run."""
    first = next((run for system in systems.values() for run in system.runs), None)
    return {} if first is None else dict(RunFolder(first.folder).environment())
