"""Figures of studies with an axis: shots of the training data, and several repeated keys."""

from __future__ import annotations

import re
from statistics import fmean, stdev

from jaxvalues.config.trees import flat
from jaxvalues.report.drawing import (
    COLORS,
    INK,
    MARKS,
    MOST_SYSTEMS,
    Picture,
    best_of,
    caption,
    drawing,
    legend_beside,
    picture,
    wrapped,
)
from jaxvalues.report.table import Table
from jaxvalues.report.words import figure, interval, sentence_case
from jaxvalues.statistics.interval import Interval
from jaxvalues.study.plan import in_words
from jaxvalues.study.results import StudyResults

SHOTS = "data.shots"


def few_shot(results: StudyResults, split: str) -> Picture | None:
    """The study's figure against the shots of each category, one line for systems that differ in nothing else."""
    lines: dict[str, list[tuple[int, Interval]]] = {}
    scientific = results.study.scientific
    for name, one in results.systems.items():
        changes = flat(one.changes)
        shots, base = changes.pop(SHOTS, None), scientific.systems.get(name, {}).get("base")
        if name in scientific.combined or split not in results.intervals(one) or not isinstance(shots, int):
            continue
        changes |= {} if base is None else {"base": base}
        lines.setdefault(", ".join(in_words(changes)) or "base", []).append((shots, results.intervals(one)[split]))
    lines = {label: sorted(points, key=lambda at: at[0]) for label, points in lines.items() if len(points) > 1}
    kept, left_out = best_of({label: points[-1][1].estimate for label, points in lines.items()})
    lines = {label: lines[label] for label in kept}
    if not lines:
        return None
    named = results.figure_name
    name, title, rows = f"shots-{split}", f"{sentence_case(named)} on {split} against shots", []
    with drawing(name, 7.2, 3.6) as drawn:
        ax = drawn.add_subplot()
        for place, (label, points) in enumerate(lines.items()):
            x, found = zip(*points, strict=True)
            y = [one.estimate for one in found]
            ax.plot(x, y, color=COLORS[place], marker=MARKS[place], markersize=5, label=wrapped(label))
            ax.fill_between(x, [one.low for one in found], [one.high for one in found], color=COLORS[place], alpha=0.15)
            rows += [(label, str(shots), interval(one)) for shots, one in points]
        ticks = sorted({shots for points in lines.values() for shots, _ in points})
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, [str(shots) for shots in ticks])
        ax.minorticks_off()
        caption(drawn, "shots of each category (log scale); bands: 95 % intervals")
        ax.set_ylabel(named)
        legend_beside(ax)
        ends = [
            f"{label} from {figure(a[1].estimate)} to {figure(b[1].estimate)}" for label, (a, *_, b) in lines.items()
        ]
        finding = f"From the fewest to the most shots: {'; '.join(ends)}.{left_out}"
        table = Table(name, title + ".", ("Systems", "Shots", f"{named} (95 %)"), tuple(rows))
        return picture(drawn, name, title, finding, table)


def spreads(results: StudyResults, split: str) -> list[Picture]:
    """Every run as a dot, one figure for each repeated key with two values or more.

    Empty where the seed is the only one: the figure of the scores shows its runs.
    """
    keys = [key for key, values in results.study.repeated.items() if len(values) > 1]
    drawn = [_spread(results, split, key) for key in keys if keys != ["seed"]]
    return [one for one in drawn if one is not None]


def _spread(results: StudyResults, split: str, key: str) -> Picture | None:
    """Every run as a dot, in one row for each system and value of a repeated key."""
    name = f"spread-{key.replace('.', '-')}-{split}"
    title = f"{sentence_case(results.figure_name)} on {split} by {key}"
    found: dict[tuple[str, str], list[float]] = {}
    for label, one in results.systems.items():
        for run in one.runs:
            (value,) = in_words({key: run.repeated[key]}) if key in run.repeated else ("all combined",)
            found.setdefault((label, value), []).append(results.figure_of(run, split))
    if not found:
        return None
    rows = [(label, value, f1) for (label, value), f1 in found.items()]
    systems = list(dict.fromkeys(row[0] for row in rows))
    labels = [wrapped(f"{label}, {re.sub(r'[^ ]*/', '', value)}", 44) for label, value, _ in reversed(rows)]
    row = max(0.26, 0.06 + 0.12 * max(label.count("\n") + 1 for label in labels))
    with drawing(name, 7.2, 0.9 + row * len(rows)) as drawn:
        ax = drawn.add_subplot()
        for place, (label, _, f1) in enumerate(reversed(rows)):
            look = systems.index(label) % MOST_SYSTEMS
            ax.plot(f1, [place] * len(f1), MARKS[look], color=COLORS[look], markersize=4.5, alpha=0.75)
            if len(f1) > 1:
                ax.plot([fmean(f1)] * 2, [place - 0.32, place + 0.32], color=INK, linewidth=1.2)
        ax.set_yticks(range(len(rows)), labels, fontsize=8)
        ax.set_ylim(-0.6, len(rows) - 0.4)
        caption(drawn, f"{results.figure_name}; marks: single runs, lines: their means")
        means = {one: [fmean(f1) for label, _, f1 in rows if label == one] for one in systems}
        said = "; ".join(f"{label} {figure(stdev(at))}" for label, at in means.items() if len(at) > 1)
        finding = f"Standard deviation of the means over {key}: {said or 'not known from one value'}."
        cells = tuple((label, value, figure(fmean(f1)), str(len(f1))) for label, value, f1 in rows)
        table = Table(name, title + ".", ("System", key, f"Mean {results.figure_name}", "Runs"), cells)
        return picture(drawn, name, title, finding, table)
