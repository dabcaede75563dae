"""What was measured, as figures with names; and two measurements side by side: before and after, or two machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from jaxvalues.bench.machine import machine_in_words, warn_if_busy
from jaxvalues.bench.report import describe_shape, make_table
from jaxvalues.config.reading import read_json
from jaxvalues.errors import UserError

UNITS = {"s": 1.0, "GB": 1e-9}


class Figure(NamedTuple):
    """One number: what of which contender in which case. Less is better."""

    case: str
    contender: str
    what: str
    value: float
    unit: str
    """`s` or `GB`."""


def read_result(path: Path) -> dict[str, Any]:
    """What `jaxvalues bench --json` wrote. Raises UserError for another file."""
    result = read_json(path, "a measurement of `jaxvalues bench --json`")
    if not isinstance(result, dict) or not isinstance(result.get("machine"), dict):
        raise UserError(f"{path}: expected a measurement that `jaxvalues bench --json` wrote")
    try:
        found = figures(result)
    except (KeyError, TypeError, AttributeError, StopIteration):
        found = []
    if not found:
        raise UserError(f"{path}: holds no measurement that this version of `jaxvalues bench` knows")
    return result


def figures(result: dict[str, Any]) -> list[Figure]:
    """The figures of a measurement, in order."""
    return list(_FIGURES[result.get("bench", "steps")](result))


def conditions(result: dict[str, Any]) -> str:
    """What the figures hold for: config, dtype, processor, versions and load."""
    names = [case["network"] for case in result["cases"]] if result.get("bench") == "compile" else [result["config"]]
    return f"{', '.join(names)} in {_dtype(result)}; {machine_in_words(result['machine'])}"


def compare_results(before: dict[str, Any], after: dict[str, Any], console: Console) -> list[tuple[Figure, Figure]]:
    """Print the figures that two measurements share, with their ratios; returns these pairs.

    Raises UserError where they share none.
    """
    pairs = shared(before, after)
    for name, result in (("before", before), ("after", after)):
        console.print(f"{name}: {conditions(result)}", highlight=False, markup=False)
    table = make_table("Before and after", ("case", "contender", "what"), ("before", "after", "after / before"))
    said = ""
    for one, other in pairs:
        factor = UNITS[one.unit]
        values = [f"{figure.value * factor:.3g} {one.unit}" for figure in (one, other)]
        ratio = f"{other.value / one.value:.2f}" if one.value else ""
        table.add_row(one.case if one.case != said else "", one.contender, one.what, *values, ratio)
        said = one.case
    console.print(table)
    for result in (before, after):
        warn_if_busy(result["machine"], console.print)
    return pairs


def shared(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[Figure, Figure]]:
    """The pairs of figures with the same case, contender and meaning. Raises UserError where there are none."""
    there = {figure[:3]: figure for figure in figures(after)}
    pairs = [(figure, there[figure[:3]]) for figure in figures(before) if figure[:3] in there]
    if not pairs:
        raise UserError("the two measurements share no figure: they are of other presets, shapes or contenders")
    return pairs


def _steps(result: dict[str, Any]) -> Iterator[Figure]:
    for case in result["cases"]:
        name = f"{result['config']}, {case['work']}, {describe_shape(case['shape'])}"
        for contender, one in case["contenders"].items():
            yield Figure(name, contender, "step", one["median_s"], "s")
            yield Figure(name, contender, "memory", one["peak_bytes"], "GB")
            for kind in ("cold", "warm"):
                if kind in one:
                    yield Figure(name, contender, f"first step, {kind}", one[kind]["seconds"], "s")


def _compile(result: dict[str, Any]) -> Iterator[Figure]:
    names = {"first step": "first_s", "step": "steady_s", "trace": "trace_s", "compile or read": "compile_s"}
    for case in result["cases"]:
        for way, one in case["ways"].items():
            for what, key in names.items():
                if one.get(key) is not None:
                    yield Figure(case["network"], way, what, one[key], "s")
            yield Figure(case["network"], way, "memory", one["peak_bytes"], "GB")


def _sweep(result: dict[str, Any]) -> Iterator[Figure]:
    number = len(result["rates"])
    case = f"{result['config']}, {number} rates"
    steps = {"together": result["step_s"]["together"], "alone": number * result["step_s"]["alone"]}
    for kind, contender in (("together", "together"), ("alone", f"{number} processes")):
        yield Figure(case, contender, "whole", result["seconds"][kind], "s")
        yield Figure(case, contender, "step", steps[kind], "s")
        yield Figure(case, contender, "memory", result["peak_bytes"][kind], "GB")


def _feed(result: dict[str, Any]) -> Iterator[Figure]:
    for way, rate in result["steps_per_s"].items():
        yield Figure(f"{result['config']}, {result['rows']} rows", way, "step", 1 / rate, "s")


_FIGURES = {"steps": _steps, "compile": _compile, "sweep": _sweep, "feed": _feed}


def _dtype(result: dict[str, Any]) -> str:
    match result.get("bench", "steps"):
        case "steps":
            return result["cases"][0]["contenders"]["jaxvalues"]["is"]["dtype"]
        case "compile":
            return next(iter(result["cases"][0]["ways"].values()))["dtype"]
    return result["dtype"]
