"""What `jaxvalues compare` prints: the plan of a study, and its results in short."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

from rich.console import Console
from rich.table import Table

from jaxvalues.config import Config
from jaxvalues.errors import counted, name_list
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.probe import operations_per_second
from jaxvalues.run.resolve import resolve_dtype
from jaxvalues.statistics.interval import Interval
from jaxvalues.study.budget import Size
from jaxvalues.study.choice import choose, extended, finished_trials
from jaxvalues.study.combined import combined_runs, in_a_sentence, member_count, runs_worth
from jaxvalues.study.combining import result_folder
from jaxvalues.study.measured import read_measured
from jaxvalues.study.plan import Plan, PlannedRun
from jaxvalues.study.results import ContrastResult, StudyResults
from jaxvalues.study.run import duration

_SHARE, _BEGIN = 1 / 3, 4.0
"""For estimates: the share of the rate of products that a run reaches, predictions included, and seconds to begin.

MiniLM with a prompt reached .36 on one core with AMX; networks with wider layers and float32 reach more.
"""


def print_plan(plan: Plan, sizes: Mapping[str, Size], unknown: Mapping[str, str], console: Console) -> None:
    """Print the systems of a study with their trials, runs, sizes and times. Trains nothing.

    `unknown` says why a size is not known, {system: sentence}.
    """
    console.print(plan.study.question, style="bold", markup=False, highlight=False)
    table = _table("system", ("trials", "runs", "trained parameters", "training FLOP", "program", "time"))
    programs: dict[tuple[str, ...], int] = {}
    trials = runs = 0
    for name in plan.systems:
        config, size = plan.first(name), sizes[name]
        tried, repeats = plan.trials(name, extended(plan)), plan.runs(name, plan.first_values(name))
        trials, runs = trials + len(tried), runs + len(repeats)
        number = programs.setdefault(_program(config), len(programs) + 1)
        table.add_row(
            name,
            f"{len(finished_trials(plan, name))} of {len(tried)}" if tried else "none",
            f"{_finished_runs(plan, name)} of {len(repeats)}",
            _number(size.trained),
            "not known" if size.flops is None else f"{size.flops:.2g}",
            str(number),
            _time(plan, name, len(tried) + len(repeats), size),
        )
    for name, how in plan.study.scientific.combined.items():
        flops, (done, wanted) = sizes[name].flops, _combined(plan, name)
        program = programs[_program(plan.first(how.of))]
        table.add_row(
            name,
            "none",
            f"{done} of {wanted}",
            _number(sizes[name].trained),
            "not known" if flops is None else f"{flops:.2g}",
            str(program),
            _time(plan, how.of, _more_runs(plan, name), sizes[how.of]),
        )
    console.print(table)
    for reason in dict.fromkeys(unknown.values()):
        whose = name_list(name for name, said in unknown.items() if said == reason)
        console.print(f"{whose}: sizes are not known: {reason}", highlight=False, markup=False)
    for name in plan.study.scientific.combined:
        console.print(in_a_sentence(plan, name), highlight=False, markup=False)
    members = sum(_other_members(plan, name) for name in plan.study.scientific.combined)
    more = f", {counted(members, 'more run')} as members" if members else ""
    console.print(
        f"{counted(trials, 'trial')} and {counted(runs, 'run')}{more}; systems with the same program number share "
        "compiled programs. Time is that of finished runs times all that are planned; with ~ none is finished, and "
        "it is a rough estimate from the training FLOP and how fast this machine multiplies.",
        highlight=False,
    )
    contrasts = "; ".join(f"{one.a} less {one.b}" for one in plan.contrasts)
    if plan.replication is not None:
        console.print(plan.replication, highlight=False, markup=False)
    console.print(f"Compared: {contrasts}. Reported: {', '.join(plan.study.report)}.", highlight=False, markup=False)


def _program(config: Config) -> tuple[str, ...]:
    """What decides the compiled steps, as far as it is known before a network is read."""
    return config.program(), str(config.model.path), str(config.model.revision)


def _number(value: int | None) -> str:
    return "not known" if value is None else f"{value:,}"


def print_results(results: StudyResults, console: Console) -> None:
    """Print the figures of every system, every contrast with its verdict, and what is missing."""
    splits = list(results.splits)
    table = _table("system", (*(f"{split}\n{results.figure_name}" for split in splits), "parameters", "runs"))
    for name, system in results.systems.items():
        intervals = results.intervals(system)
        cells = [_interval(intervals[split]) + system.mark(split) if split in intervals else "" for split in splits]
        table.add_row(name, *cells, _number(system.trained_parameters), str(len(system.runs)))
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


def _interval(one: Interval) -> str:
    low, middle, high = map(figure, (one.low, one.estimate, one.high))
    return f"{middle} ({low}–{high})"


def _finished_runs(plan: Plan, name: str) -> int:
    chosen = choose(plan, name)
    runs = [] if chosen is None else plan.runs(name, chosen)
    return sum(map(_is_finished, runs))


def _combined(plan: Plan, name: str) -> tuple[int, int]:
    """How many runs of a combined system are finished, and planned."""
    of = plan.study.scientific.combined[name].of
    chosen = choose(plan, of)
    planned = combined_runs(plan, name, plan.first_values(of) if chosen is None else chosen)
    return 0 if chosen is None else sum(result_folder(one) is not None for one in planned), len(planned)


def _other_members(plan: Plan, name: str) -> int:
    """How many runs a combined system needs besides those of the system that it combines."""
    of = plan.study.scientific.combined[name].of
    values = plan.first_values(of)
    own = {one.config.folder for one in plan.runs(of, values)}
    return len({each.config.folder for one in combined_runs(plan, name, values) for each in one.members} - own)


def _more_runs(plan: Plan, name: str) -> float:
    """What a combined system computes besides the runs of the system that it combines, in runs of that."""
    how, runs = plan.study.scientific.combined[name], math.prod(map(len, plan.repeated(name).values()))
    halving = how.combine == "halving"
    return runs * runs_worth(how, member_count(plan, name)) if halving else _other_members(plan, name)


def _is_finished(one: PlannedRun) -> bool:
    return RunFolder(one.config.folder).is_finished


def _time(plan: Plan, name: str, number: float, size: Size) -> str:
    """The time of so many runs of a system of a `size`: from finished ones, or else roughly, with ~ before it."""
    chosen = choose(plan, name)
    planned = (*plan.trials(name, extended(plan)), *([] if chosen is None else plan.runs(name, chosen)))
    seconds = [read_measured(one.config.folder).seconds for one in planned if _is_finished(one)]
    known = [one for one in seconds if one is not None]
    if known or not number:
        return duration(fmean(known or [0.0]) * number)
    if not size.flops:  # nothing trains, or the data are not here
        return "not known yet"
    rate = operations_per_second(resolve_dtype(plan.first(name).model.dtype))
    return f"~ {duration(number * (_BEGIN + size.flops / (_SHARE * rate)))}"


def _table(first: str, others: tuple[str, ...]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table
