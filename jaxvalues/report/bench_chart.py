"""The chart of a measurement, or of two side by side: seconds of every contender on one logarithmic axis, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxvalues.bench.comparison import Figure, conditions, figures, shared
from jaxvalues.config.writing import write_whole
from jaxvalues.report.drawing import COLORS, INK, MARKS, drawing, picture, shown
from jaxvalues.report.table import Table

_SHOWN = ("whole", "first step", "first step, cold", "step")
_ROW_INCHES, _WIDTH_INCHES = 0.28, 8.0


def write_chart(results: Sequence[dict[str, Any]], file: Path) -> None:
    """Write the chart of one measurement, or of two: before and after. Raises UserError where two share no figure."""
    write_whole(file, chart(results))


def chart(results: Sequence[dict[str, Any]]) -> str:
    """The SVG. Each contender of a case has a row; each kind of figure has a colour; of two measurements, the second
    one is filled."""
    columns = [figures(results[0])] if len(results) == 1 else list(zip(*shared(*results), strict=True))
    columns = [[one for one in column if one.unit == "s" and one.what in _SHOWN] for column in columns]
    rows = list(dict.fromkeys((one.case, one.contender) for one in columns[0]))
    kinds = [what for what in _SHOWN if any(one.what == what for one in columns[0])]
    height = 1.2 + _ROW_INCHES * (len(rows) + len({case for case, _ in rows})) + 0.2 * len(results)
    with drawing("bench", _WIDTH_INCHES, height) as figure:
        axes = figure.subplots()
        places = _places(rows)
        for number, column in enumerate(columns):
            for kind in kinds:
                some = [one for one in column if one.what == kind]
                color, mark = COLORS[kinds.index(kind)], MARKS[kinds.index(kind)]
                filled = number == len(columns) - 1
                axes.scatter(
                    [one.value for one in some],
                    [places[one.case, one.contender] for one in some],
                    s=36,
                    marker=mark,
                    facecolors=color if filled else "none",
                    edgecolors=color,
                    zorder=3,
                    label=kind if len(columns) == 1 else f"{kind}, {('before', 'after')[number]}",
                )
        axes.set_xscale("log")
        axes.set_xlabel("seconds, logarithmic")
        axes.set_yticks(list(places.values()), [shown(contender) for _, contender in places])
        axes.set_ylim(max(places.values()) + 0.7, -1.2)
        axes.grid(axis="y", visible=False)
        for case in dict.fromkeys(case for case, _ in rows):
            top = min(place for (one, _), place in places.items() if one == case)
            axes.text(
                0, top - 0.65, shown(case), transform=axes.get_yaxis_transform(), color=INK, weight="bold", size=9
            )
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.9 / height - 0.02), ncols=3)
        said = "\n".join(_broken(conditions(result)) for result in results)
        figure.suptitle(shown(said), size=7, x=0.01, ha="left", color=INK)
        return picture(figure, "bench", "Time of every contender", _finding(results), _table(columns)).svg


def _places(rows: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Where each row is, from above; between two cases there is room for the name of the case."""
    places, place, before = {}, -1.0, None
    for row in rows:
        place += 1.0 if row[0] == before or before is None else 2.0
        places[row], before = place, row[0]
    return places


def _finding(results: Sequence[dict[str, Any]]) -> str:
    what = "Seconds of every contender" if len(results) == 1 else "Seconds before and after"
    return f"{what}. {' Then: '.join(map(conditions, results))}"


def _table(columns: Sequence[Sequence[Figure]]) -> Table:
    header = ("case", "contender", "what", *(["seconds"] if len(columns) == 1 else ["before", "after"]))
    rows = tuple((*column[0][:3], *(f"{one.value:.4g}" for one in column)) for column in zip(*columns, strict=True))
    return Table("bench", "Seconds of every contender", header, rows)


def _broken(text: str, width: int = 150) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
