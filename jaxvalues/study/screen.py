"""What `jaxvalues compare` prints: the plan of a study, and its results in short."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from rich.console import Console
from rich.table import Table

from jaxvalues.config.reading import read_json
from jaxvalues.errors import counted
from jaxvalues.run.folder import RunFolder
from jaxvalues.statistics.interval import Interval
from jaxvalues.study.budget import Size
from jaxvalues.study.choice import choose, extended, finished_trials
from jaxvalues.study.plan import Plan
from jaxvalues.study.results import ContrastResult, StudyResults
from jaxvalues.study.run import MEASURED, duration


def print_plan(plan: Plan, sizes: Mapping[str, Size], console: Console) -> None:
    """Print the systems of a study with their trials, runs and sizes. Computes nothing."""
    console.print(plan.study.question, style="bold", markup=False, highlight=False)
    table = _table("system", ("trials", "runs", "trained parameters", "training FLOP", "program", "time"))
    programs: dict[str, int] = {}
    trials = runs = 0
    for name in plan.systems:
        config, size = plan.first(name), sizes[name]
        tried, repeats = plan.trials(name, extended(plan)), plan.runs(name, plan.first_values(name))
        trials, runs = trials + len(tried), runs + len(repeats)
        number = programs.setdefault(config.program(), len(programs) + 1)
        table.add_row(
            name,
            f"{len(finished_trials(tried))} of {len(tried)}" if tried else "none",
            f"{_finished_runs(plan, name)} of {len(repeats)}",
            f"{size.trained:,}",
            "not known" if size.flops is None else f"{size.flops:.2g}",
            str(number),
            _time(plan, name, len(tried) + len(repeats)),
        )
    console.print(table)
    console.print(
        f"{counted(trials, 'trial')} and {counted(runs, 'run')}; systems with the same program number share compiled "
        "programs. Time is that of finished runs times all that are planned.",
        highlight=False,
    )
    contrasts = ", ".join(f"{one.a} less {one.b}" for one in plan.contrasts)
    console.print(f"Compared: {contrasts}. Reported: {', '.join(plan.study.report)}.", highlight=False, markup=False)


def print_results(results: StudyResults, console: Console) -> None:
    """Print the figures of every system, every contrast with its verdict, and what is missing."""
    splits = list(results.splits)
    table = _table("system", (*(f"{split}\n{_FIGURE[results.study.metric]}" for split in splits), "parameters", "runs"))
    for name, system in results.systems.items():
        intervals = system.intervals if results.study.metric == "official_f1" else system.mean_category_intervals
        cells = [_interval(intervals[split]) + system.mark(split) if split in intervals else "" for split in splits]
        table.add_row(name, *cells, f"{system.trained_parameters:,}", str(len(system.runs)))
    console.print(table)
    for one in results.contrasts:
        console.print(f"{one.split}: {verdict(one)}", highlight=False, markup=False)
    for sentence in (*results.notes, *results.missing):
        console.print(sentence, style="dim", highlight=False, markup=False)


def verdict(one: ContrastResult) -> str:
    """A contrast as one sentence, which rests on its adjusted p."""
    if not one.decided:
        figures = f"{signed(one.difference)} (95 % {signed(one.interval.low)} to {signed(one.interval.high)}"
        return f"{one.a} and {one.b}: not decided by these data, {figures}; adjusted p {probability(one.p_adjusted)})."
    better, worse, sign = (one.a, one.b, 1) if one.difference > 0 else (one.b, one.a, -1)
    low, high = sorted((sign * one.interval.low, sign * one.interval.high))
    figures = f"{figure(abs(one.difference))} (95 % {signed(low)} to {signed(high)}"
    return f"{better} is better than {worse} by {figures}; adjusted p {probability(one.p_adjusted)})."


def figure(value: float) -> str:
    """A figure between 0 and 1: .431."""
    return f"{value:.3f}".removeprefix("0")


def signed(value: float) -> str:
    """A difference with its sign: +.012, −.012."""
    text = figure(abs(value))
    return text if text == ".000" else ("−" if value < 0 else "+") + text


def probability(p: float) -> str:
    """A p: .034, or below .001."""
    return "below .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


_FIGURE = {"official_f1": "official F1", "mean_category_f1": "mean category F1"}


def _interval(one: Interval) -> str:
    low, middle, high = map(figure, (one.low, one.estimate, one.high))
    return f"{middle} ({low}–{high})"


def _finished_runs(plan: Plan, name: str) -> int:
    chosen = choose(plan.trials(name, extended(plan)))
    runs = [] if chosen is None else plan.runs(name, chosen)
    return sum(RunFolder(one.config.folder).is_finished for one in runs)


def _time(plan: Plan, name: str, number: int) -> str:
    """The time of so many runs of a system, from those that are finished."""
    chosen = choose(plan.trials(name, extended(plan)))
    planned = (*plan.trials(name, extended(plan)), *([] if chosen is None else plan.runs(name, chosen)))
    files = [one.config.folder / MEASURED for one in planned]
    seconds = [read_json(file, "what a run took").get("seconds") for file in files if file.is_file()]
    known = [one for one in seconds if isinstance(one, int | float)]
    return duration(fmean(known) * number) if known else "not known yet"


def _table(first: str, others: tuple[str, ...]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table
