"""The heat map of a study: how much every category's F1 differs in every contrast."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from string import ascii_uppercase

import numpy as np

from jaxvalues.errors import name_list
from jaxvalues.report.drawing import Picture, drawing, picture, shown
from jaxvalues.report.table import Table
from jaxvalues.report.words import signed
from jaxvalues.study.results import ContrastResult, StudyResults

_MOST_COLUMNS = 8
"""As many contrasts as a page is wide enough for."""


def heat_map(results: StudyResults, split: str) -> Picture | None:
    """Category by contrast: differences of the F1, with a dot where the tests decide.

    Contrasts are letters, with a key below.
    """
    declared = [one for one in results.contrasts if one.split == split]
    contrasts = declared[:_MOST_COLUMNS]
    if not contrasts:
        return None
    rest = f" The first {_MOST_COLUMNS} of {len(declared)} contrasts." if len(declared) > len(contrasts) else ""
    name, title = f"categories-{split}", f"Differences of the F1 of every category on {split}"
    values = np.stack([one.category_differences for one in contrasts], axis=1)
    sure = np.stack([one.category_p_adjusted < 0.05 for one in contrasts], axis=1)
    positives = results.splits[split].labels.sum(axis=0)
    most = max(float(np.nanmax(np.abs(values))), 0.01)
    key = _key(contrasts)
    with drawing(name, 7.2, 5.4 + 0.15 * len(key)) as drawn:
        ax = drawn.add_subplot()
        image = ax.imshow(values, cmap="PuOr", vmin=-most, vmax=most, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            if np.isnan(value):
                continue
            ax.text(
                column, row, signed(value) + (" •" if sure[row, column] else ""), ha="center", va="center",
                fontsize=7.5, color="white" if abs(value) > 0.62 * most else "#101010",
            )  # fmt: skip
        ax.set_xticks(range(len(contrasts)), ascii_uppercase[: len(contrasts)])
        ax.xaxis.tick_top()
        rows = [f"{label}  n {int(n)}" for label, n in zip(results.categories, positives, strict=True)]
        ax.set_yticks(range(len(rows)), rows, fontsize=8)
        ax.grid(visible=False)
        for spine in ax.spines.values():
            spine.set_visible(False)
        drawn.colorbar(image, ax=ax, shrink=0.4, label="difference of the F1")
        drawn.supxlabel("\n".join(key), fontsize=8, x=0.01, ha="left")
        finding = (
            f"{int(sure.sum())} of {np.isfinite(values).sum()} differences are decided {_tests(contrasts)} "
            f"(Benjamini–Hochberg, 5 %).{rest}"
        )
        return picture(drawn, name, title, finding, _table(results, name, title, contrasts))


def _tests(contrasts: Sequence[ContrastResult]) -> str:
    """What decides a difference."""
    over = sorted({key.rpartition(".")[2] for one in contrasts if one.t is not None for key in one.over})
    if not over:
        return "by permutation of conclusions, which says nothing about other seeds"
    return f"by permutation of conclusions and, where runs differ, by t over {name_list(over)}"


def _key(contrasts: list[ContrastResult]) -> list[str]:
    """The lines that say which contrast is which letter."""
    lines = ["•: decided"]
    for letter, one in zip(ascii_uppercase, contrasts, strict=False):
        lines += textwrap.wrap(f"{letter}: {one.a} minus {one.b}", 110, subsequent_indent="     ")
    return [shown(line) for line in lines]


def _table(results: StudyResults, name: str, title: str, contrasts: list[ContrastResult]) -> Table:
    """The differences, with the dots of the figure."""

    def cell(one: ContrastResult, row: int) -> str:
        value, sure = one.category_differences[row], one.category_p_adjusted[row] < 0.05
        return "–" if np.isnan(value) else signed(value) + " •" * bool(sure)

    rows = tuple((category, *(cell(one, row) for one in contrasts)) for row, category in enumerate(results.categories))
    return Table(name, f"{title}. •: decided.", ("Category", *(f"{one.a} minus {one.b}" for one in contrasts)), rows)
