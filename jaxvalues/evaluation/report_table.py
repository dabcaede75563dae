"""The scores of one system on one or several splits, as tables for a terminal of 60 columns or more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from jaxvalues.data.taxonomy import CATEGORIES, GROUPS
from jaxvalues.evaluation.accuracy import BinaryScores
from jaxvalues.evaluation.coverage import mark, note

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from jaxvalues.evaluation.comparison import Comparison
    from jaxvalues.evaluation.measures import TaskScores
    from jaxvalues.evaluation.official import LabelScore, Scores
    from jaxvalues.statistics.interval import Interval

_NAME_WIDTH = max(map(len, CATEGORIES)) + 1
_BLOCK_WIDTH = len("   P    R   F1     n") + 2  # one split's figures and the space between columns
_NOTE = (
    "Official F1 is the harmonic mean of macro-precision and macro-recall; n is the number of positives in the truth. "
    "Categories with none (–) are left out. A group counts as one label: is any of its categories there?"
)


def render_scores(scores: Mapping[str, TaskScores], console: Console) -> None:
    """Prints the four main scores of every split, then precision, recall, F1 and support of every category and group.

    For a task with one label it prints accuracy, precision, recall and F1. `scores` is {split: scores}, all of one
    task. The columns of several splits are side by side as far as the console is wide enough; the others follow below.
    """
    if any(isinstance(one, BinaryScores) for one in scores.values()):
        console.print(_accuracies(scores))
        _print_note(scores, console)
        return
    console.print(_summary(scores, console.width))
    console.print()
    splits = list(scores.items())
    side_by_side = max(1, (console.width - _NAME_WIDTH) // _BLOCK_WIDTH)
    for first in range(0, len(splits), side_by_side):
        console.print(_details(dict(splits[first : first + side_by_side])))
        console.print()
    console.print(_NOTE, style="dim")
    _print_note(scores, console)


def _print_note(scores: Mapping[str, TaskScores], console: Console) -> None:
    """The sentence about incomplete scores, if any are."""
    if (said := note(scores)) is not None:
        console.print(said, style="bold", highlight=False)


def render_members(
    members: Mapping[str, Mapping[str, Sequence[float]]], ensemble: Mapping[str, float], console: Console
) -> None:
    """Prints the official F1 of an ensemble and of its members.

    `members` is {name: {part: scores of the member's runs}}. Several runs of a member are shown as mean ± standard
    deviation (of a sample, with n − 1).
    """
    from rich.text import Text

    counts = [max(len(values) for values in parts.values()) for parts in members.values()]
    cells = {
        part: [*(_spread(parts.get(part, ())) for parts in members.values()), _figure(figure)]
        for part, figure in ensemble.items()
    }
    headings = {part: part.replace("_", " ").replace("-", "-\n") for part in ensemble}
    widths = {part: max(map(len, [*headings[part].split("\n"), *cells[part]])) + 3 for part in ensemble}
    names = [*members, "ensemble"]
    for group in _side_by_side(widths, console.width - max(map(len, [*names, "Official F1"])) - len("   runs")):
        table = _table("Official F1")
        table.add_column("runs", justify="right")
        for part in group:
            table.add_column(Text(headings[part]), justify="right", no_wrap=True)
        *rows, last = zip(names, [*counts, sum(counts)], *(cells[part] for part in group), strict=True)
        for name, count, *figures in rows:
            table.add_row(Text(name), str(count), *figures)
        table.add_section()
        table.add_row(last[0], str(last[1]), *last[2:], style="bold")
        console.print(table)


def render_decisions(rows: Mapping[str, Mapping[str, TaskScores]], console: Console) -> None:
    """Prints the main figure of several decisions about the same logits; `rows` is {decision: {split: scores}}."""
    from rich.text import Text

    first = next(iter(rows.values()))
    headline = {split: next(iter(one.headline)) for split, one in first.items()}
    table = _table("Decision")
    for split, figure in headline.items():
        table.add_column(Text(f"{split}\n{in_words(figure)}"), justify="right", no_wrap=True)
    for name, scores in rows.items():
        table.add_row(name, *(_figure(one.headline[headline[split]]) + mark(one) for split, one in scores.items()))
    console.print(table)
    console.print()


def render_comparison(comparison: Comparison, console: Console) -> None:
    """Prints the official F1 of every run with its interval, then the difference of every pair with interval and p."""
    table = _table("Run", fold=True)
    for name in ("official F1", "95 % interval", "macro-\nprecision", "macro-\nrecall", "mean\ncategory F1"):
        table.add_column(name, justify="right", style="bold" if name.startswith("official") else None)
    for name, run in comparison.runs.items():
        s = run.scores
        figures = map(_figure, (s.macro_precision, s.macro_recall, s.mean_category_f1))
        table.add_row(name, _figure(s.official_f1), _span(run.interval), *figures)
    console.print(table)
    console.print()
    table = _table("Difference a − b, a", fold=True)
    table.add_column("b", overflow="fold")
    for name in ("official F1", "95 % interval", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in comparison.pairs:
        difference = _signed(pair.interval.estimate)
        table.add_row(pair.a, pair.b, difference, _span(pair.interval, _signed), _p(pair.p))
    console.print(table)
    console.print()


def _span(interval: Interval, show: Callable[[float], str] | None = None) -> str:
    show = show or _figure
    return f"{show(interval.low)} to {show(interval.high)}"


def _signed(value: float) -> str:
    """A difference with its sign: +.012, −.012."""
    return ("−" if value < 0 else "+") + _figure(abs(value))


def _p(value: float) -> str:
    """A p in four places, .0002; values are at least 1 / 4001."""
    return f"{value:.4f}".removeprefix("0")


def _side_by_side(widths: Mapping[str, int], room: int) -> Iterator[list[str]]:
    """The columns in groups that fit side by side."""
    group: list[str] = []
    for name, width in widths.items():
        if group and sum(widths[one] for one in group) + width > room:
            yield group
            group = []
        group.append(name)
    if group:
        yield group


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return _figure(values[0] if values else None)
    return f"{_figure(fmean(values))} ± {_figure(stdev(values))}"


def in_words(figure: str) -> str:
    """The display name of a figure (a key of scores.json): `official_f1` becomes "official F1"."""
    return figure.replace("_", " ").replace("f1", "F1")


def _accuracies(scores: Mapping[str, BinaryScores]) -> Table:
    from rich.text import Text

    table = _table("Scores")
    for name in ("accuracy", "majority\naccuracy", "positive", "P", "R", "F1", "n", "arguments"):
        table.add_column(name, justify="right", style="bold" if name == "accuracy" else None)
    for split, s in scores.items():
        figures = map(_figure, (s.precision, s.recall, s.f1))
        both = map(_figure, (s.accuracy, s.majority_accuracy))
        accuracy, majority = both
        table.add_row(Text(split), accuracy + mark(s), majority, s.positive, *figures, str(s.support), str(s.arguments))
    return table


def _summary(scores: Mapping[str, Scores], width: int) -> Table:
    from rich.text import Text

    table = _table("Scores")
    names = ("official F1", "macro-\nprecision", "macro-\nrecall", "mean\ncategory F1")
    if width < 70:
        names = ("official\nF1", "macro-\nprecision", "macro-\nrecall", "mean\ncat. F1")
    for name in names:
        table.add_column(name, justify="right", style="bold" if name.startswith("official") else None)
    for split, s in scores.items():
        figures = (s.official_f1, s.macro_precision, s.macro_recall, s.mean_category_f1)
        table.add_row(Text(split), *(_figure(figure) + mark(s) for figure in figures))
    return table


def _details(scores: Mapping[str, Scores]) -> Table:
    from rich.text import Text

    table = _table("Category")
    for split in scores:
        table.add_column(Text(f"{split}\n   P    R   F1     n"), justify="right", no_wrap=True)
    for name in CATEGORIES:
        table.add_row(name, *(_block(s.categories[name]) for s in scores.values()))
    table.add_section()
    for name in GROUPS:
        table.add_row(name, *(_block(s.groups[name]) for s in scores.values()), style="italic")
    return table


def _table(first_column: str, fold: bool = False) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column(first_column, no_wrap=not fold, overflow="fold" if fold else "ellipsis")
    return table


def _block(label: LabelScore) -> str:
    figures = (_figure(value).rjust(4) for value in (label.precision, label.recall, label.f1))
    return " ".join((*figures, f"{label.support:5d}"))


def _figure(value: float | None) -> str:
    """A figure in at most four characters: .528, 1.00 or – (None)."""
    if value is None:
        return "–"
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0") else text[:4]
