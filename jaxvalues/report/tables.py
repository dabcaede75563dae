"""The tables of a study's report."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from jaxvalues.report.best_group import best_group, how_found
from jaxvalues.report.paper import ROWS, paper_row
from jaxvalues.report.table import Table
from jaxvalues.report.words import deciding_test, difference, figure, interval, number, p_value, resampled
from jaxvalues.statistics.variance import CONCLUSION
from jaxvalues.study.crossed import grid_of
from jaxvalues.study.plan import in_words
from jaxvalues.study.results import StudyResults, SystemResult


def main_table(results: StudyResults) -> Table:
    """Every system with its figures on every split, and what it took. The best group is marked."""
    splits, tried = list(results.splits), any(system.trials for system in results.systems.values())
    header = [
        "System",
        *(f"{split}: official F1" for split in splits),
        *(f"{split}: mean category F1" for split in splits),
    ]
    compared = [split for split in splits if any(_to_baseline(results, name, split) for name in results.systems)]
    header += [f"{split}: minus {baseline_of(results)}" for split in compared]
    header += ["Trained parameters", "Training FLOP", "Seconds", "Memory", "Runs", *["Trials"] * tried]
    rows = []
    for name, system in results.systems.items():
        seconds = [run.seconds for run in system.runs if run.seconds is not None]
        peaks = [run.peak_bytes for run in system.runs if run.peak_bytes is not None]
        known, means = system.intervals, system.mean_category_intervals
        cells = [interval(known[split]) + system.mark(split) if split in known else "not run" for split in splits]
        cells += [interval(means[split]) + system.mark(split) if split in means else "" for split in splits]
        cells += [_to_baseline(results, name, split) for split in compared]
        trained = system.trained_parameters
        cells += ["not known" if trained is None else f"{trained:,}", number(system.training_flops)]
        cells += [
            f"{fmean(seconds):.0f}" if seconds else "",
            number(max(peaks), "B") if peaks else "",
            _runs(system),
        ]
        rows.append((name, *cells, *[str(len(system.trials))] * tried))
    best = best_group(results, splits[-1]) if splits else frozenset()
    return Table(
        "systems",
        f"Official F1 with 95 % interval over {resampled(results)}, and what each system took.",
        tuple(header),
        tuple(rows),
        frozenset(i for i, name in enumerate(results.systems) if name in best),
        how_found(results, splits[-1]) if best else "",
    )


def _runs(system: SystemResult) -> str:
    """The number of runs; of an incomplete grid, also of how many the figures are."""
    used = len(grid_of(system.runs)[0]) if system.runs else 0
    return str(used) if used == len(system.runs) else f"{used} of {len(system.runs)}"


def baseline_of(results: StudyResults) -> str:
    """The system that the others are compared with."""
    return results.study.baseline or next(iter(results.systems))


def _to_baseline(results: StudyResults, name: str, split: str) -> str:
    """The difference of a system to the baseline on a split, if the study declares it, in either direction."""
    baseline = baseline_of(results)
    for one in results.contrasts:
        if one.split == split and {one.a, one.b} == {name, baseline}:
            return difference(one, turned=one.b == name)
    return ""


def contrast_table(results: StudyResults) -> Table:
    """Every declared contrast with its tests."""
    rows = []
    for one in results.contrasts:
        rows.append(
            (
                f"{one.a} minus {one.b}", one.split, difference(one), p_value(one.p), p_value(one.p_adjusted),
                p_value(None if one.welch is None else one.welch.p), p_value(one.sign_flip), figure(one.detectable),
                deciding_test(one),
                "yes" if one.decided else "no",
            )
        )  # fmt: skip
    header = ("Contrast", "Split", "Difference (95 %)", "p", "p, Holm", "p, Welch", "p, signs", "Detectable", "Test")
    return Table("contrasts", "The declared contrasts.", (*header, "Decided"), tuple(rows))


def category_table(results: StudyResults, split: str) -> Table:
    """The F1 of every category, mean over the runs of each system, and the number of positives."""
    systems = {name: system for name, system in results.systems.items() if system.runs}
    labels = results.splits[split].labels
    rows = []
    for column, category in enumerate(results.categories):
        cells = [_mean_f1(system, split, category) for system in systems.values()]
        rows.append(
            (category, f"{int(labels[:, column].sum()):,}", *("–" if np.isnan(f1) else figure(f1) for f1 in cells))
        )
    name = f"categories-{split}"
    return Table(
        name,
        f"F1 of every category on {split}; n is the number of positives.",
        ("Category", "n", *systems),
        tuple(rows),
    )


def _mean_f1(system: SystemResult, split: str, category: str) -> float:
    found = [run.scores[split].categories[category].f1 for run in system.runs]
    return float("nan") if None in found else fmean(found)


def trial_table(results: StudyResults) -> Table | None:
    """Every trial of the nuisance keys; None in a study without them."""
    rows = [
        (
            name,
            ", ".join(in_words(trial.values)),
            figure(trial.figure),
            "chosen" if trial.values == system.chosen else "",
        )
        for name, system in results.systems.items()
        for trial in system.trials
    ]
    if not rows:
        return None
    header = ("System", "Values", f"Held-out {results.figure_name}", "")
    return Table("trials", "Trials on held-out arguments.", header, tuple(rows))


def variance_table(results: StudyResults, split: str) -> Table | None:
    """Where the variance of each system's figure comes from, as standard deviations; None with too few runs."""
    systems = {name: system.variance[split] for name, system in results.systems.items() if split in system.variance}
    if not systems:
        return None
    factors = list(max((found.components for found in systems.values()), key=len))  # one that combines has fewer
    rows = []
    for name, found in systems.items():
        variances = found.averaged(CONCLUSION)
        cells = [figure(variances[key] ** 0.5) if key in variances else "" for key in factors]
        rows.append((name, *cells))
    return Table(
        f"variance-{split}",
        f"Standard deviation of the figure of one run on {split} by source: other seeds and the like, other "
        "conclusions (as many as here), and all their interactions together.",
        ("System", *factors),
        tuple(rows),
    )


def paper_table(results: StudyResults) -> Table:
    """The numbers of the study of 2024 beside ours, where a system is one of its rows."""
    ours: dict[str, str] = {}
    for name, system in results.systems.items():
        row = paper_row(results.study, name)
        if row is not None and "validation" in system.mean_category_intervals:
            ours[row] = interval(system.mean_category_intervals["validation"])
    rows = tuple((row, figure(value), ours.get(row, "not run here")) for row, value in ROWS.items())
    return Table(
        "paper",
        "The study's F1 on validation (one run each, chosen on the same split) beside the mean category F1 here.",
        ("Row of the study", "The study", "Here"),
        rows,
        note="" if ours else "No system of this study is one of these rows.",
    )


def tables(results: StudyResults) -> list[Table]:
    """All tables that a study has."""
    found: Sequence[Table | None] = [
        main_table(results),
        contrast_table(results) if results.contrasts else None,
        trial_table(results),
        *(variance_table(results, split) for split in results.splits),
        *(category_table(results, split) for split in results.splits if _has_runs(results)),
        paper_table(results),
    ]
    return [one for one in found if one is not None]


def _has_runs(results: StudyResults) -> bool:
    return any(system.runs for system in results.systems.values())
