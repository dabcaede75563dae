"""Figures of how systems were trained: held-out figures while training, and the trials of the nuisance keys."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import numpy as np

from jaxvalues.report.drawing import COLORS, MARKS, Picture, best_of, drawing, legend_beside, picture, places, wrapped
from jaxvalues.report.table import Table
from jaxvalues.report.tables import trial_table
from jaxvalues.report.words import figure, listed
from jaxvalues.study.choice import is_number
from jaxvalues.study.results import StudyResults, SystemResult


def learning_curves(results: StudyResults) -> Picture | None:
    """The held-out official F1 while training: the mean over runs, and every run in a thin line."""
    kept, left_out = best_of(
        {
            name: fmean(run.held_out.official_f1 for run in one.runs)
            for name, one in results.systems.items()
            if any(len(run.curve) > 1 for run in one.runs)
        }
    )
    systems = {name: results.systems[name] for name in kept}
    if not systems:
        return None
    name, title, rows = "learning", "Held-out official F1 while training", []
    with drawing(name, 7.2, 3.6) as drawn:
        ax = drawn.add_subplot()
        for label, place in places(results.systems, kept).items():
            one = systems[label]
            lines = [
                {int(at["step"]): float(at["official_f1"]) for at in run.curve if "official_f1" in at}
                for run in one.runs
            ]
            lines = [line for line in lines if line]  # a run may have no evaluations
            steps = sorted(set.intersection(*map(set, lines))) if lines else []
            if not steps:
                continue
            end = steps[-1] or 1
            for line in lines:
                ax.plot(
                    [s / end for s in steps], [line[s] for s in steps], color=COLORS[place], linewidth=0.6, alpha=0.5
                )
            mean = [fmean(line[s] for line in lines) for s in steps]
            ax.plot(
                [s / end for s in steps],
                mean,
                color=COLORS[place],
                marker=MARKS[place],
                markersize=4,
                label=wrapped(label),
            )
            rows += [(label, str(s), figure(f1)) for s, f1 in zip(steps, mean, strict=True)]
        if not rows:
            return None
        ax.set_xlabel("share of training done")
        ax.set_ylabel("held-out official F1")
        legend_beside(ax)
        table = Table(name, title + ", mean over runs.", ("System", "Step", "Held-out official F1"), tuple(rows))
        last = {row[0]: row[2] for row in rows}
        ends = "; ".join(f"{label} {f1}" for label, f1 in last.items())
        return picture(drawn, name, title, f"At the end: {ends}.{left_out}", table)


def tuning_curves(results: StudyResults) -> Picture | None:
    """The best held-out figure at each value of the numbers among the nuisance keys; the chosen one is ringed."""
    kept, left_out = best_of(
        {name: max(trial.figure for trial in one.trials) for name, one in results.systems.items() if one.trials}
    )
    systems = {name: results.systems[name] for name in kept}
    tried = [trial.values for one in systems.values() for trial in one.trials]
    keys = [key for key in results.study.nuisance.keys if all(is_number(values[key]) for values in tried)]
    table = trial_table(results)
    if not keys or not systems or table is None:
        return None
    name, title = "trials", "Trials on held-out arguments"
    with drawing(name, 7.2, 3.2 * len(keys)) as drawn:
        for ax, key in zip(np.ravel(drawn.subplots(len(keys), squeeze=False)), keys, strict=True):
            for label, place in places(results.systems, kept).items():
                one = systems[label]
                points = _best_by_value(one, key)
                ax.plot(
                    *zip(*points, strict=True),
                    color=COLORS[place],
                    marker=MARKS[place],
                    markersize=5,
                    label=wrapped(label),
                )
                for trial in one.trials:
                    if trial.values == one.chosen:
                        ax.plot(trial.values[key], trial.figure, "o", markersize=12, mfc="none", mec=COLORS[place])
            positive = all(trial.values[key] > 0 for one in systems.values() for trial in one.trials)
            ax.set_xscale("log" if positive else "linear")
            ax.set_xlabel(f"{key} (log scale)" if positive else key)
            ax.set_ylabel(f"held-out {results.figure_name}")
            legend_beside(ax)
        return picture(drawn, name, title, _about_ranges(systems) + left_out, table)


def _about_ranges(systems: Mapping[str, SystemResult]) -> str:
    """Which best values lie on the edge of their range. Of ranges that are not fully tried it says nothing."""
    tried = {label: one for label, one in systems.items() if one.chosen}
    edge = [f"{label} ({', '.join(one.edges)})" for label, one in tried.items() if one.edges]
    said = [f"On the edge of its range: {'; '.join(edge)}."] if edge else []
    if len(tried) < len(systems):
        waiting = [label for label in systems if label not in tried]
        said.append(f"Not all trials are finished: {listed(waiting)}.")
    return " ".join(said) or "Every best value lies inside its range."


def _best_by_value(system: SystemResult, key: str) -> list[tuple[float, float]]:
    """The best held-out figure of the trials at each value of a nuisance key, sorted by the value."""
    best: dict[float, float] = {}
    for trial in system.trials:
        value = float(trial.values[key])
        best[value] = max(trial.figure, best.get(value, 0.0))
    return sorted(best.items())
