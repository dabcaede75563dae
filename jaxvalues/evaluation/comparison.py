"""Compares the run files of several systems, whoever made them, on the same arguments.

Every run gets an interval, every pair a difference with interval and p. Both resample conclusions, where a file of the
arguments says which argument belongs to which; without it they resample arguments.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.named_columns import read_named_columns
from jaxvalues.evaluation.scoring import ScoredRun, decide_run, read_conclusions
from jaxvalues.statistics.bootstrap import resample
from jaxvalues.statistics.counts import count
from jaxvalues.statistics.interval import Interval
from jaxvalues.statistics.tests import permutation


@dataclass(frozen=True)
class Pair:
    """The difference a - b of the official F1 of two runs."""

    a: str
    b: str
    interval: Interval
    p: float
    """Two-sided and unadjusted, by permutation of whole conclusions (`statistics.tests.permutation`)."""

    def to_json(self) -> dict[str, Any]:
        return {"a": self.a, "b": self.b, "difference": self.interval.estimate, **self.interval.to_json(), "p": self.p}


@dataclass(frozen=True)
class Comparison:
    """Several runs on the same arguments."""

    runs: dict[str, ScoredRun]
    """{name: scores}, each with its interval. Names are those of `run_names`."""
    pairs: tuple[Pair, ...]
    """Every pair once, in the order of the runs."""
    resampled: str
    """"conclusions" or "arguments"."""
    groups: int
    """The number of those."""

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of all runs, each once, and a sentence about what was resampled."""
        every = dict.fromkeys(note for run in self.runs.values() for note in run.notes)
        how = f"Intervals (95 %) and p (two-sided, unadjusted) resample {self.groups} {self.resampled}."
        if self.resampled == "arguments":
            how += " Arguments about one conclusion are alike, so these intervals are too narrow: give --arguments."
        return (*every, how)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for `json.dump`: runs by name, pairs, and what was resampled."""
        return {
            "runs": {name: run.to_json() for name, run in self.runs.items()},
            "pairs": [pair.to_json() for pair in self.pairs],
            "resampled": self.resampled,
        }


def compare_files(
    truth: str | Path,
    runs: Sequence[str | Path],
    threshold: float | None = None,
    arguments: str | Path | None = None,
) -> Comparison:
    """Scores several runs against a labels file, as `scoring.score_files` does, and compares every two of them.

    `arguments` is a file of the arguments of the truth in the published format. Raises UserError and ConfigError as
    `score_files`, and ConfigError for a file that is given twice.
    """
    names = run_names(runs)
    labels = read_named_columns(truth, binary=True)
    decided = [decide_run(truth, labels, run, threshold) for run in runs]
    group = None if arguments is None else read_conclusions(arguments, truth, labels.ids)
    counts = count(labels.values, np.stack([one.decisions for one in decided]), group)
    if counts.groups < 2:
        raise UserError(f"{truth} has one argument, expected at least two to compare runs")
    resampled = resample(counts)
    return Comparison(
        runs={
            name: replace(one.scored, interval=resampled.interval(i))
            for i, (name, one) in enumerate(zip(names, decided, strict=True))
        },
        pairs=tuple(
            Pair(names[a], names[b], resampled.interval(a, b), permutation(counts, a, b))
            for a, b in combinations(range(len(names)), 2)
        ),
        resampled="arguments" if arguments is None else "conclusions",
        groups=counts.groups,
    )


def run_names(runs: Sequence[str | Path]) -> list[str]:
    """The file names without `.tsv`; where two are the same, with as many folders before them as tell them apart.

    Raises ConfigError for a file that is given twice.
    """
    paths = [Path(os.path.abspath(run)) for run in runs]
    files = [path.resolve() for path in paths]
    for path, run in zip(files, runs, strict=True):
        if files.count(path) > 1:
            raise ConfigError(f"--run {run}: the file is given twice")
    parts = [(*path.parts[1:-1], path.name.removesuffix(".tsv")) for path in paths]
    depth = [1] * len(parts)

    def named() -> list[str]:
        return ["/".join(part[-length:]) for part, length in zip(parts, depth, strict=True)]

    names = named()
    while len(set(names)) < len(names):
        deeper = [
            length + 1 if names.count(name) > 1 and length < len(part) else length
            for name, length, part in zip(names, depth, parts, strict=True)
        ]
        if deeper == depth:  # a file p beside a file p.tsv
            same = next(run for run, name in zip(runs, names, strict=True) if names.count(name) > 1)
            raise ConfigError(f"--run {same}: another file has the same name without .tsv, expected different names")
        depth = deeper
        names = named()
    return names
