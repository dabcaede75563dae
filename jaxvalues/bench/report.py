"""The tables of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxvalues.bench.task import APART, GENERATION


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
        markup=False,
        emoji=False,
    )
    for name, one in contenders.items():
        versions = ", ".join(f"{package} {version}" for package, version in one["is"]["versions"].items())
        console.print(f"{name}: {versions}; {one['is']['settings']}; {one['is']['threads']} threads", highlight=False)
    cases = result["cases"]
    if console.width >= 110:
        console.print(_steady(cases), _starting(cases))
    else:  # a narrow terminal has no place for a column that says which case it is
        for case in cases:
            console.print(f"\n{case['work']}, {describe_shape(case['shape'])} tokens", style="bold", highlight=False)
            console.print(_steady([case], console.width >= 80, labels=False), _starting([case], labels=False))
    if APART in contenders:
        console.print(_branches(result["cases"]))
    if result["generation"]:
        console.print(_generation(result["generation"]))
    if machine["load_before"][0] > 1:
        console.print(
            f"The machine was busy (load {machine['load_before'][0]:.1f} before the start): read ratios, not seconds.",
            highlight=False,
        )


def _steady(cases: Sequence[dict[str, Any]], quartiles: bool = True, labels: bool = True) -> Table:
    """What a step takes, and a peer's seconds and memory as multiples of jaxvalues' own."""
    numbers = ("seconds", *["quartiles"] * quartiles, "examples/s", "GB", "× seconds", "× GB")
    table = _table("Steps", *numbers, case=labels)
    for case in cases:
        for name, one in case["contenders"].items():
            times = (1 / one["times_as_fast_as_jaxvalues"], one["times_the_memory_of_jaxvalues"])
            table.add_row(
                *_head(case, name, labels),
                f"{one['median_s']:.3g}",
                *["–".join(f"{value:.3g}" for value in one["quartiles_s"])] * quartiles,
                f"{case['shape'][0] / one['median_s']:.1f}",
                f"{one['peak_bytes'] / 1e9:.1f}",
                *(("", "") if name == "jaxvalues" else (f"{value:.2f}" for value in times)),
            )
    return table


def _starting(cases: Sequence[dict[str, Any]], labels: bool = True) -> Table:
    """What starting takes."""
    numbers = ("trace", "compile\ncold", "\nwarm", "first step\ncold", "\nwarm")
    table = _table("Starting, seconds", *numbers, case=labels)
    for case in cases:
        for name, one in case["contenders"].items():
            cold, warm = one.get("cold", {}), one["warm"]
            seconds = (warm.get("trace_s"), cold.get("compile_s"), warm.get("compile_s"))
            seconds += (cold.get("seconds"), warm.get("seconds"))
            shown = ("" if value is None else f"{value:.1f}" for value in seconds)
            table.add_row(*_head(case, name, labels), *shown)
    return table


def _head(case: dict[str, Any], name: str, labels: bool) -> tuple[str, ...]:
    """The first cells of a row: its case, once, where there is a column for it, and the contender."""
    said = f"{case['work']}, {describe_shape(case['shape'])}" if name == "jaxvalues" else ""
    return (said, name) if labels else (name,)


def saving(case: dict[str, Any]) -> dict[str, float]:
    """Positions (`computed`, `real`) and seconds of separate questions as multiples of those of branched questions."""
    ours, apart = case["contenders"]["jaxvalues"], case["contenders"][APART]
    times = {kind: apart["positions"][kind] / ours["positions"][kind] for kind in ("computed", "real")}
    return times | {"seconds": apart["median_s"] / ours["median_s"]}


def generation_rates(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tokens per second of prefill and decoding, for every length and contender that did both kinds of work.

    Prefill reads the prompts and chooses the first token of each; decoding is what generating the others takes more.
    """
    rates = []
    of_work = {(case["work"], *case["shape"]): case for case in cases if case["work"] in GENERATION}
    for (work, rows, length), case in of_work.items():
        read = of_work.get(("prefill", rows, length))
        if work != "generate" or read is None:
            continue
        for name, one in case["contenders"].items():
            prefill = read["contenders"][name]["median_s"]
            decoding, new = one["median_s"] - prefill, case["new_tokens"] - 1
            rates.append(
                {
                    "shape": [rows, length],
                    "new_tokens": case["new_tokens"],
                    "contender": name,
                    "prefill_tokens_per_s": rows * length / prefill,
                    # noise may make the difference of two medians negative where few tokens are generated
                    "decode_tokens_per_s": rows * new / decoding if decoding > 0 else None,
                }
            )
    return rates


def _generation(rates: Sequence[dict[str, Any]]) -> Table:
    """One row per case and contender."""
    table = _table("Tokens per second", "prefill", "decode")
    for one in rates:
        said = f"{describe_shape(one['shape'])}, {one['new_tokens']} new" if one["contender"] == "jaxvalues" else ""
        numbers = (one["prefill_tokens_per_s"], one["decode_tokens_per_s"])
        table.add_row(said, one["contender"], *("" if x is None else f"{x:,.0f}" for x in numbers))
    return table


def _branches(cases: Sequence[dict[str, Any]]) -> Table:
    """One row per case: tokens of both layouts, prompts included, and the share of the saving that becomes time."""
    numbers = ("tokens", "apart", "× tokens", "unpadded", "× seconds", "share", "unpadded")
    table = _table("Branches: questions apart as multiples of these", *numbers, contender=False)
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


def _table(title: str, *numbers: str, case: bool = True, contender: bool = True) -> Table:
    return make_table(title, (*["work, rows × tokens"] * case, *["contender"] * contender), numbers)


def make_table(title: str, names: Sequence[str], numbers: Sequence[str] = ()) -> Table:
    """A table with columns of names, and columns of numbers to their right."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        header_style="bold",
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    for header in names:
        table.add_column(header)
    for header in numbers:
        table.add_column(header, justify="right")
    return table
