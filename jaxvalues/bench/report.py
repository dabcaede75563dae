"""What was measured, as a table."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def render(result: dict[str, Any], console: Console) -> None:
    """Print the conditions, then what a step takes and what starting takes, one row per case and contender.

    "peer / jaxvalues" is how many of its own steps jaxvalues takes while the peer takes one; a first step includes
    tracing and compiling, cold with an empty cache and warm with the one that the cold process left.
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
    steady = _table("Steps", "seconds", "quartiles", "examples/s", "GB", "peer / jaxvalues")
    starting = _table("Starting, seconds", "trace", "compile cold", "warm", "first step cold", "warm")
    for case in result["cases"]:
        for name, one in case["contenders"].items():
            head = (f"{case['work']}, {' × '.join(map(str, case['shape']))}" if name == "jaxvalues" else "", name)
            steady.add_row(
                *head,
                f"{one['median_s']:.3g}",
                "–".join(f"{value:.3g}" for value in one["quartiles_s"]),
                f"{case['shape'][0] / one['median_s']:.1f}",
                f"{one['peak_bytes'] / 1e9:.1f}",
                "" if name == "jaxvalues" else f"{1 / one['times_as_fast_as_jaxvalues']:.2f}",
            )
            cold, warm = one.get("cold", {}), one["warm"]
            seconds = (warm.get("trace_s"), cold.get("compile_s"), warm.get("compile_s"))
            seconds += (cold.get("seconds"), warm.get("seconds"))
            starting.add_row(*head, *("" if value is None else f"{value:.1f}" for value in seconds))
    console.print(steady, starting)
    if machine["load_before"][0] > 1:
        console.print(
            f"The machine was busy (load {machine['load_before'][0]:.1f} before the start): read ratios, not seconds.",
            highlight=False,
        )


def _table(title: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="bold")
    for header in ("work, rows × tokens", "contender"):
        table.add_column(header)
    for header in numbers:
        table.add_column(header, justify="right")
    return table
