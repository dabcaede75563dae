"""A summary of a folder of data and of the problems in its files, as figures and as tables for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxvalues.config.reading import user_path
from jaxvalues.data.arguments import Split
from jaxvalues.data.conclusions import group_by_conclusion, normalize_conclusion
from jaxvalues.data.folder import check_folder, split_files
from jaxvalues.data.loading import load_split, sample_folder
from jaxvalues.data.taxonomy import CATEGORIES, SOURCES
from jaxvalues.data.touche23_value_eval.release import matches_release
from jaxvalues.errors import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class Words:
    """The number of words in an argument: its three fields together, split at white space."""

    mean: float
    median: float
    p90: float
    max: int


@dataclass(frozen=True)
class SplitSummary:
    """The figures of one split. Those that need labels are None without labels."""

    name: str
    rows: int
    sources: dict[str, int]
    """{letter of `taxonomy.SOURCES`: number of arguments}"""
    words: Words
    repeated: int
    """The number of arguments whose conclusion, stance and premise all equal those of an earlier row."""
    conclusion_texts: int
    """The number of different conclusion texts."""
    conclusions: int
    """The number of different conclusions, compared as in `jaxvalues.data.conclusions`."""
    published: bool | None
    """Whether all files of the split are the published ones, byte for byte. None: the checksum of one is unknown."""
    counts: dict[str, int] | None
    """{category: number of arguments that have it}"""
    mean_labels: float | None
    """The mean number of categories per argument."""
    without_label: int | None
    """The number of arguments without any category."""


@dataclass(frozen=True)
class FolderSummary:
    """The figures of a folder of data: its readable splits, and one sentence for each problem."""

    dir: Path
    splits: tuple[SplitSummary, ...]
    shared_conclusions: int
    """The number of conclusions that occur in more than one split, compared as in `jaxvalues.data.conclusions`."""
    problems: tuple[str, ...]


def describe(source: str, dir: str | Path | None) -> FolderSummary:
    """The summary of the data that `data.source` and `data.dir` of a config name."""
    if dir is not None:
        return describe_folder(dir)
    if source == "sample":
        with sample_folder() as folder:
            return describe_folder(folder)
    return describe_published()


def describe_folder(dir: str | Path) -> FolderSummary:
    """The summary of a folder of TSV files. Raises UserError only when the folder does not exist."""
    dir = user_path(dir)
    splits, problems = check_folder(dir)
    readable = [split for split in splits.values() if len(split)]
    published = {split.name: _are_published(split.name, Path(dir)) for split in readable}
    return _sum_up(Path(dir), readable, published, problems)


def describe_published() -> FolderSummary:
    """The summary of the published data set, downloaded on first use. Raises UserError for a failed download."""
    from jaxvalues.data.touche23_value_eval.prepared import prepare

    builder = prepare()
    splits = [load_split(name) for name in builder.info.splits]
    return _sum_up(Path(builder.data_dir), splits, {split.name: True for split in splits}, ())


def render(summary: FolderSummary, console: Console) -> None:
    """Print the splits, their sources, the label counts and the problems; made for 60 columns or more."""
    from rich.text import Text

    console.print(Text(str(summary.dir), style="bold"), soft_wrap=True)
    for part in _tables(summary, console.width):
        console.print()
        console.print(part)
    if joined := [split for split in summary.splits if split.conclusions < split.conclusion_texts]:
        console.print(f"\n{_joined(joined)}")
    if shared := summary.shared_conclusions:
        said = f"{counted(shared, 'conclusion')} {'occurs' if shared == 1 else 'occur'} in more than one split."
        console.print(f"\n{said}", style="yellow")
    console.print()
    if not summary.problems:
        console.print("No problems found.", style="green")
    for problem in summary.problems[:_SHOWN_PROBLEMS]:
        console.print(Text(problem, style="red"), soft_wrap=True)
    if (more := len(summary.problems) - _SHOWN_PROBLEMS) > 0:
        console.print(f"... and {more} more problems.", style="red")


def _sum_up(
    dir: Path, splits: Sequence[Split], published: dict[str, bool | None], problems: Sequence[str]
) -> FolderSummary:
    homes = Counter(
        conclusion for split in splits for conclusion in {normalize_conclusion(a.conclusion) for a in split.arguments}
    )
    shared = sum(count > 1 for count in homes.values())
    return FolderSummary(
        dir, tuple(_summary(split, published[split.name]) for split in splits), shared, tuple(problems)
    )


def _are_published(name: str, folder: Path) -> bool | None:
    """See `SplitSummary.published`."""
    matches = {matches_release(folder / file) for file in split_files(name) if (folder / file).is_file()}
    return False if False in matches else None if None in matches else True


def _summary(split: Split, published: bool | None) -> SplitSummary:
    lengths = [len(f"{a.conclusion} {a.stance} {a.premise}".split()) for a in split.arguments]
    texts = {(a.conclusion, a.stance, a.premise) for a in split.arguments}
    labels = split.labels
    return SplitSummary(
        name=split.name,
        rows=len(split),
        sources=dict(sorted(Counter(a.source for a in split.arguments).items())),
        words=Words(
            float(np.mean(lengths)), float(np.median(lengths)), float(np.percentile(lengths, 90)), max(lengths)
        ),
        repeated=len(split) - len(texts),
        conclusion_texts=len({a.conclusion for a in split.arguments}),
        conclusions=len(group_by_conclusion(split.arguments)[1]),
        published=published,
        counts=None if labels is None else dict(zip(CATEGORIES, labels.sum(axis=0).tolist(), strict=True)),
        mean_labels=None if labels is None else float(labels.sum(axis=1).mean()),
        without_label=None if labels is None else int((~labels.any(axis=1)).sum()),
    )


def _joined(splits: Sequence[SplitSummary]) -> str:
    """How many conclusion texts count as the same conclusion."""
    counts = (f"{s.conclusion_texts} texts of {s.name} are {s.conclusions} conclusions" for s in splits)
    return (
        "Conclusions that differ only in case, punctuation or blanks count as one, and are held out together: "
        f"{', '.join(counts)}."
    )


def _tables(summary: FolderSummary, width: int) -> Iterator[RenderableType]:
    from rich.console import Group

    if summary.splits:
        yield from _split_tables(summary.splits, width)
        yield Group(_source_table(summary.splits), _legend(summary.splits))
    labelled = [split for split in summary.splits if split.counts is not None]
    for group in _side_by_side(labelled, width):
        yield _category_table(group)


def _split_tables(splits: Sequence[SplitSummary], width: int) -> Iterator[Table]:
    """Sizes, labels and origin of the splits: in one table, or in two where the terminal is narrow."""
    sizes, labels = (
        ("rows", "words\nmean", "\n90 %", "\nmax"),
        ("labels\nmean", "\nnone", "re-\npeated", "pub-\nlished"),
    )
    rows: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []
    for s in splits:
        published = {True: "yes", False: "no", None: "in part"}[s.published]
        of_labels = ("–", "–") if s.mean_labels is None else (f"{s.mean_labels:.2f}", str(s.without_label))
        figures = (str(s.rows), f"{s.words.mean:.1f}", f"{s.words.p90:.0f}", str(s.words.max))
        rows.append((s.name, figures, (*of_labels, str(s.repeated), published)))
    if width >= 80:
        yield _filled("Split", (*sizes, *labels), [(name, *left, *right) for name, left, right in rows])
    else:
        yield _filled("Split", sizes, [(name, *left) for name, left, _ in rows])
        yield _filled("Split", labels, [(name, *right) for name, _, right in rows])


def _filled(first: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = _table(first)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _source_table(splits: Sequence[SplitSummary]) -> Table:
    letters = sorted({letter for s in splits for letter in s.sources})
    table = _table("Source")
    for letter in letters:
        table.add_column(letter, justify="right")
    for s in splits:
        table.add_row(s.name, *(str(s.sources.get(letter, "–")) for letter in letters))
    return table


def _legend(splits: Sequence[SplitSummary]) -> Text:
    from rich.text import Text

    letters = sorted({letter for s in splits for letter in s.sources})
    return Text(" · ".join(f"{letter} {SOURCES.get(letter, 'unknown')}" for letter in letters), style="dim")


def _category_table(splits: Sequence[SplitSummary]) -> Table:
    table = _table("Category")
    for s in splits:
        table.add_column(_heading(s), justify="right", no_wrap=True)
    for name in CATEGORIES:
        table.add_row(name, *(f"{s.counts[name]} {s.counts[name] / s.rows:4.0%}" for s in splits))
    return table


def _side_by_side(splits: Sequence[SplitSummary], width: int) -> Iterator[list[SplitSummary]]:
    """The splits in groups: the columns of one group fit beside the names of the categories."""
    group: list[SplitSummary] = []
    available = left = width - max(map(len, CATEGORIES))
    for split in splits:
        needed = max(9, *map(len, _heading(split).split("\n"))) + 3
        if group and needed > left:
            yield group
            group, left = [], available
        group.append(split)
        left -= needed
    if group:
        yield group


def _heading(split: SplitSummary) -> str:
    return split.name.replace("-", "\n")


def _table(first_column: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column(first_column, no_wrap=True)
    return table
