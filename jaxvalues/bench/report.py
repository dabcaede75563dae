"""What was measured, as a table."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def render(result: dict[str, Any], console: Console) -> None:
    """Print the conditions and one row per case and contender.

    "times" is how many of a peer's steps jaxvalues takes in the time of one; a first step includes tracing and
    compiling, cold with an empty cache and warm with the one that the cold process left.
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
        console.print(f"{name}: {versions}; {one['is']['threads']} threads", highlight=False)

    table = Table(box=None, header_style="bold")
    for header in ("work", "tokens", "contender"):
        table.add_column(header)
    for header in (
        "trace",
        "compile cold",
        "warm",
        "first step cold",
        "warm",
        "step, s",
        "quartiles",
        "ex/s",
        "GB",
        "times",
    ):
        table.add_column(header, justify="right")
    for case in result["cases"]:
        for name, one in case["contenders"].items():
            cold, warm = one.get("cold", {}), one["warm"]
            table.add_row(
                case["work"] if name == "jaxvalues" else "",
                " × ".join(map(str, case["shape"])) if name == "jaxvalues" else "",
                name,
                *(_seconds(value) for value in (warm.get("trace_s"), cold.get("compile_s"), warm.get("compile_s"))),
                *(_seconds(first.get("seconds")) for first in (cold, warm)),
                f"{one['median_s']:.3g}",
                "–".join(f"{value:.3g}" for value in one["quartiles_s"]),
                f"{case['shape'][0] / one['median_s']:.1f}",
                f"{one['peak_bytes'] / 1e9:.1f}",
                "" if name == "jaxvalues" else f"{1 / one['times_as_fast_as_jaxvalues']:.2f}",
            )
    console.print(table)
    if machine["load_before"][0] > 1:
        console.print(
            f"The machine was busy (load {machine['load_before'][0]:.1f} before the start): read ratios, not seconds.",
            highlight=False,
        )


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
