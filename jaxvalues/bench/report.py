"""The tables of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxvalues.bench.task import APART


def render(result: dict[str, Any], console: Console) -> None:
    """Print the conditions, then a table of steps and a table of starting, one row per case and contender.

    The last two columns of the first table are seconds and memory of a peer as multiples of those of jaxvalues. A first
    step includes tracing and compiling: cold with an empty compile cache, warm with the cache that the cold process
    left. With the peer `jaxvalues-apart`, a third table compares the tokens that branches save with the time they save.
    """
    machine = result["machine"]
    contenders = result["cases"][0]["contenders"]
    ours = contenders["jaxvalues"]["is"]
    console.print(
        f"{result['config']}: {ours['parameters']:,} parameters in {ours['dtype']}, {result['tokens']}; "
        f"{ours['device']} ({ours['platform']}), {machine['processor']}, {machine['cores']} cores",
        highlight=False,
    )
    for name, one in contenders.items():
        versions = ", ".join(f"{package} {version}" for package, version in one["is"]["versions"].items())
        console.print(f"{name}: {versions}; {one['is']['settings']}; {one['is']['threads']} threads", highlight=False)
    steady = _table("Steps", "seconds", "quartiles", "examples/s", "GB", "× seconds", "× GB")
    starting = _table("Starting, seconds", "trace", "compile cold", "warm", "first step cold", "warm")
    for case in result["cases"]:
        for name, one in case["contenders"].items():
            head = (f"{case['work']}, {describe_shape(case['shape'])}" if name == "jaxvalues" else "", name)
            steady.add_row(
                *head,
                f"{one['median_s']:.3g}",
                "–".join(f"{value:.3g}" for value in one["quartiles_s"]),
                f"{case['shape'][0] / one['median_s']:.1f}",
                f"{one['peak_bytes'] / 1e9:.1f}",
                *(
                    ("", "")
                    if name == "jaxvalues"
                    else (
                        f"{1 / one['times_as_fast_as_jaxvalues']:.2f}",
                        f"{one['times_the_memory_of_jaxvalues']:.2f}",
                    )
                ),
            )
            cold, warm = one.get("cold", {}), one["warm"]
            seconds = (warm.get("trace_s"), cold.get("compile_s"), warm.get("compile_s"))
            seconds += (cold.get("seconds"), warm.get("seconds"))
            starting.add_row(*head, *("" if value is None else f"{value:.1f}" for value in seconds))
    console.print(steady, starting)
    if APART in contenders:
        console.print(_branches(result["cases"]))
    if machine["load_before"][0] > 1:
        console.print(
            f"The machine was busy (load {machine['load_before'][0]:.1f} before the start): read ratios, not seconds.",
            highlight=False,
        )


def saving(case: dict[str, Any]) -> dict[str, float]:
    """Positions (`computed`, `real`) and seconds of separate questions as multiples of those of branched questions."""
    ours, apart = case["contenders"]["jaxvalues"], case["contenders"][APART]
    times = {kind: apart["positions"][kind] / ours["positions"][kind] for kind in ("computed", "real")}
    return times | {"seconds": apart["median_s"] / ours["median_s"]}


def _branches(cases: Sequence[dict[str, Any]]) -> Table:
    """One row per case: tokens of both layouts, prompts included, and the share of the saving that becomes time."""
    numbers = ("tokens", "apart", "× tokens", "unpadded", "× seconds", "share", "unpadded")
    table = _table("Branches: questions apart as multiples of these", *numbers, label=False)
    for case in cases:
        read = (case["contenders"][name]["positions"]["computed"] for name in ("jaxvalues", APART))
        times = saving(case)
        shares = (times["seconds"] / times[kind] for kind in ("computed", "real"))
        table.add_row(
            f"{case['work']}, {describe_shape(case['shape'])}",
            *(f"{count:,}" for count in read),
            *(f"{times[kind]:.2f}" for kind in ("computed", "real", "seconds")),
            *(f"{share:.2f}" for share in shares),
        )
    return table


def describe_shape(shape: Sequence[int]) -> str:
    """The shape of a batch in words: rows × tokens, or rows × (tokens + questions × their tokens)."""
    rows, tokens, *branches = shape
    return f"{rows} × ({tokens} + {branches[0]} × {branches[1]})" if branches else f"{rows} × {tokens}"


def _table(title: str, *numbers: str, label: bool = True) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="bold")
    for header in ("work, rows × tokens", *["contender"] * label):
        table.add_column(header)
    for header in numbers:
        table.add_column(header, justify="right")
    return table
