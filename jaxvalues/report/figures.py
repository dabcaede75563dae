"""The figures of a study's report. Each is left out where the study has nothing for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from jaxvalues.evaluation.decision import sigmoid
from jaxvalues.report.curves import few_shot, spreads
from jaxvalues.report.drawing import (
    COLORS,
    FAINT,
    INK,
    MARKS,
    Picture,
    best_of,
    caption,
    drawing,
    legend_beside,
    picture,
    places,
    wrapped,
)
from jaxvalues.report.embedding_map import embedding_map
from jaxvalues.report.heat_map import heat_map
from jaxvalues.report.table import Table
from jaxvalues.report.tables import category_table, contrast_table, main_table
from jaxvalues.report.training_curves import learning_curves, tuning_curves
from jaxvalues.report.words import figure, listed, number, resampled, sentence_case
from jaxvalues.study.results import StudyResults, SystemResult
from jaxvalues.study.screen import verdict

if TYPE_CHECKING:
    from matplotlib.axis import Axis

_BINS = 10


def pictures(results: StudyResults) -> list[Picture]:
    """All figures that a study has, in the order of the page."""
    first: Sequence[Callable[[StudyResults, str], Picture | None]] = (forest, scores, frontier, time_frontier, few_shot)
    last: Sequence[Callable[[StudyResults, str], Picture | None]] = (heat_map, calibration, radar)
    found: list[Picture | None] = []
    for split in results.splits:
        found += [make(results, split) for make in first]
        found += spreads(results, split)
        found += [make(results, split) for make in last]
    found += [learning_curves(results), tuning_curves(results), embedding_map(results)]
    return [one for one in found if one is not None]


def _finished(results: StudyResults, split: str) -> dict[str, SystemResult]:
    return {name: one for name, one in results.systems.items() if split in one.intervals}


def _estimates(results: StudyResults, split: str) -> dict[str, float]:
    """{finished system: estimate of the study's figure on a split}."""
    return {name: results.intervals(one)[split].estimate for name, one in _finished(results, split).items()}


def forest(results: StudyResults, split: str) -> Picture | None:
    """The differences of the contrasts with their intervals; each run is a dot."""
    contrasts = [one for one in results.contrasts if one.split == split]
    if not contrasts:
        return None
    name, title = f"forest-{split}", f"Differences of the {results.figure_name} on {split}"
    labels = [f"{wrapped(one.a, 40)}\n{wrapped(f'minus {one.b}', 40)}" for one in reversed(contrasts)]
    row = max(0.5, 0.2 + 0.16 * max(label.count("\n") + 1 for label in labels))
    with drawing(name, 7.2, 0.9 + row * len(contrasts)) as drawn:
        ax = drawn.add_subplot()
        for place, one in enumerate(reversed(contrasts)):
            color = COLORS[0] if one.decided else FAINT
            ax.plot(
                [one.interval.low, one.interval.high], [place, place], color=color, linewidth=2.4, solid_capstyle="butt"
            )
            ax.plot(one.difference, place, MARKS[1] if one.decided else MARKS[0], color=color, markersize=7)
            dots = list(one.differences.values())
            if len(dots) > 1:
                ax.plot(dots, [place - 0.24] * len(dots), ".", color=INK, alpha=0.6, markersize=5)
        ax.axvline(0, color=INK, linewidth=0.9)
        ax.set_yticks(range(len(contrasts)), labels)
        ax.set_ylim(-0.6, len(contrasts) - 0.4)
        ax.grid(axis="y", visible=False)
        caption(
            drawn,
            f"difference of the {results.figure_name} with 95 % interval\ndots: single runs; blue squares: decided",
        )
        return picture(drawn, name, title, " ".join(map(verdict, contrasts)), contrast_table(results))


def scores(results: StudyResults, split: str) -> Picture | None:
    """The figure of every system with its interval and its runs."""
    systems = _finished(results, split)
    if not systems:
        return None
    name, title = f"scores-{split}", f"{sentence_case(results.figure_name)} on {split}"
    with drawing(name, 7.2, 0.9 + 0.5 * len(systems)) as drawn:
        ax = drawn.add_subplot()
        for place, one in enumerate(reversed(systems.values())):
            found = results.intervals(one)[split]
            ax.plot([found.low, found.high], [place, place], color=COLORS[0], linewidth=2.4, solid_capstyle="butt")
            ax.plot(found.estimate, place, "o", color=COLORS[0], markersize=7)
            each = [results.figure_of(run, split) for run in one.runs]
            if len(each) > 1:
                ax.plot(each, [place - 0.24] * len(each), ".", color=INK, alpha=0.6, markersize=5)
        ax.set_yticks(range(len(systems)), [wrapped(label, 40) for label in reversed(systems)])
        ax.set_ylim(-0.6, len(systems) - 0.4)
        ax.grid(axis="y", visible=False)
        dots = "; dots: single runs" if resampled(results) != "conclusions" else ""
        caption(drawn, f"{results.figure_name} with 95 % interval over {resampled(results)}{dots}")
        estimates = _estimates(results, split)
        best = max(estimates, key=estimates.__getitem__)
        finding = f"The highest {results.figure_name} on {split} is that of {best}: {figure(estimates[best])}."
        return picture(drawn, name, title, finding, main_table(results))


def frontier(results: StudyResults, split: str) -> Picture | None:
    """The study's figure against trained parameters."""
    sizes = {name: one.trained_parameters for name, one in _finished(results, split).items()}
    costs = {name: float(size) for name, size in sizes.items() if size is not None}
    return _against(results, split, costs, f"parameters-{split}", "trained parameters")


def time_frontier(results: StudyResults, split: str) -> Picture | None:
    """The study's figure against the mean wall-clock seconds of a run."""
    seconds = {
        name: [run.seconds for run in one.runs if run.seconds is not None]
        for name, one in _finished(results, split).items()
    }
    costs = {name: fmean(values) for name, values in seconds.items() if values}
    return _against(results, split, costs, f"seconds-{split}", "seconds")


def _against(results: StudyResults, split: str, costs: dict[str, float], name: str, cost: str) -> Picture | None:
    """The study's figure against what systems cost; a line joins those that no cheaper one beats."""
    estimates, fewest = {label: _estimates(results, split)[label] for label in costs}, min(costs.values(), default=0.0)
    free = {label: estimates[label] for label, value in costs.items() if value <= 0}  # no place on a log axis
    kept, left_out = best_of({label: value for label, value in estimates.items() if label not in free})
    if free:
        best, names = max(free, key=free.__getitem__), listed(list(free))
        left_out += f" Not drawn, with 0 {cost}: {names}; the best of these is {best}, {figure(free[best])}."
    costs = {label: costs[label] for label in kept}
    if len(set(costs.values())) < 2:
        return None
    found = {label: results.intervals(results.systems[label])[split] for label in costs}
    title = f"{sentence_case(results.figure_name)} on {split} against {cost}"
    with drawing(name, 7.2, 3.6) as drawn:
        ax, seen = drawn.add_subplot(), []
        for label, place in places(results.systems, kept).items():
            one = found[label]
            beside = 1.08 ** seen.count(costs[label])  # equal numbers stand side by side
            seen.append(costs[label])
            ax.errorbar(
                costs[label] * beside, one.estimate, [[one.estimate - one.low], [one.high - one.estimate]],
                fmt=MARKS[place], color=COLORS[place], label=wrapped(label),
                elinewidth=1.2, markersize=7,
            )  # fmt: skip
        best, on_line = max(free.values(), default=-1.0), []
        for label in sorted(costs, key=lambda label: (costs[label], -found[label].estimate)):
            if found[label].estimate > best:
                best = found[label].estimate
                on_line.append(label)
        line = [(costs[label], found[label].estimate) for label in on_line]
        if line:
            ax.plot(*zip(*line, strict=True), color=FAINT, linewidth=1.0, linestyle="--", zorder=0)
        ax.set_xscale("log")
        _plain_ticks(ax.xaxis, wide=max(costs.values()) > 100 * min(costs.values()))
        ax.set_xlabel(f"{cost} (log scale)")
        ax.set_ylabel(results.figure_name)
        legend_beside(ax)
        if not on_line:
            finding = f"By the estimates, no system with more than 0 {cost} has a higher {results.figure_name}."
        elif len(on_line) == 1:
            too = f" and the fewest {cost}" if costs[on_line[0]] == fewest else ""
            finding = f"By the estimates, {on_line[0]} has the highest {results.figure_name}{too}."
        else:
            finding = (
                f"By the estimates, each of these has a higher {results.figure_name} than all systems with fewer "
                f"{cost} (dashed line): {listed(on_line)}."
            )
        return picture(drawn, name, title, finding + left_out, main_table(results))


def _plain_ticks(axis: Axis, wide: bool) -> None:
    """The ticks of a log axis as 1 k and 20 M: decades alone where the range is wide, else 2 and 5 times them too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_formatter(NullFormatter())


def calibration(results: StudyResults, split: str) -> Picture | None:
    """The share of positives among predictions of similar probability, over all categories and runs."""
    kept, left_out = best_of(_estimates(results, split))
    systems = {label: results.systems[label] for label in kept}
    if not systems:
        return None
    labels, name, title = results.splits[split].labels, f"calibration-{split}", f"Calibration on {split}"
    rows, errors = [], {}
    with drawing(name, 7.2, 3.6) as drawn:
        ax = drawn.add_subplot()
        ax.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, linestyle="--")
        for label, place in places(results.systems, kept).items():
            one = systems[label]
            probabilities = np.concatenate([sigmoid(run.logits[split]).ravel() for run in one.runs])
            truth = np.concatenate([labels.ravel()] * len(one.runs))
            bins = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
            counts = np.bincount(bins, minlength=_BINS)
            used = counts > 0
            mean = np.bincount(bins, probabilities, _BINS)[used] / counts[used]
            share = np.bincount(bins, truth, _BINS)[used] / counts[used]
            errors[label] = float((np.abs(mean - share) * counts[used]).sum() / counts.sum())
            ax.plot(mean, share, marker=MARKS[place], color=COLORS[place], label=wrapped(label), markersize=5)
            rows += [(label, figure(m), figure(s), f"{n:,}") for m, s, n in zip(mean, share, counts[used], strict=True)]
        ax.set_xlabel("mean predicted probability")
        ax.set_ylabel("share of positives")
        legend_beside(ax)
        said = "; ".join(f"{label} {figure(error)}" for label, error in errors.items())
        table = Table(name, title + ".", ("System", "Mean probability", "Share of positives", "n"), tuple(rows))
        return picture(drawn, name, title, f"Expected calibration error in {_BINS} bins: {said}.{left_out}", table)


def _mean_f1(values: Iterable[float | None]) -> float:
    """The mean F1 of a category over runs; nan, which is not drawn, for one without positives."""
    return fmean(np.nan if value is None else value for value in values)


def radar(results: StudyResults, split: str) -> Picture | None:
    """The F1 of the 20 categories in the order of Schwartz's circle, for the best systems."""
    systems = _finished(results, split)
    if not systems:
        return None
    best, _ = best_of(_estimates(results, split), most=3)
    name, title = f"circle-{split}", f"F1 of the values on {split}, in Schwartz's circle"
    angles = np.linspace(0, 2 * np.pi, len(results.categories), endpoint=False)
    with drawing(name, 7.2, 6.2) as drawn:
        ax = drawn.add_subplot(projection="polar", theta_offset=np.pi / 2, theta_direction=-1)  # clockwise from the top
        for label, place in places(results.systems, best).items():
            runs = systems[label].runs
            f1 = [_mean_f1(run.scores[split].categories[one].f1 for run in runs) for one in results.categories]
            look = {"color": COLORS[place], "marker": MARKS[place], "markersize": 4}
            ax.plot([*angles, angles[0]], [*f1, f1[0]], label=wrapped(label), **look)
        ax.set_xticks(angles, [label.replace(": ", ":\n") for label in results.categories], fontsize=7.5)
        ax.tick_params(axis="x", pad=12)
        ax.spines["polar"].set_visible(False)
        one_line = sum(map(len, best)) < 60
        drawn.legend(loc="outside lower center", ncols=len(best) if one_line else 1)
        table = category_table(results, split)
        among = f", the best {len(best)} of {len(systems)} systems" if len(best) < len(systems) else ""
        finding = f"F1 of every value for {listed(best)}{among}. Neighbours on the circle share motives."
        return picture(drawn, name, title, finding, table)
