"""Runs that repeat several keys, every value of one with every value of the others: a grid, its intervals and tests.

Runs that share a seed or a template are no independent ones, so that each key is an axis of its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from jaxvalues.statistics.bootstrap import resample, two_level_interval
from jaxvalues.statistics.counts import Counts, MeanCounts
from jaxvalues.statistics.f1 import Figure, harmonic_mean, precision_recall
from jaxvalues.statistics.interval import Interval
from jaxvalues.statistics.tests import (
    benjamini_hochberg,
    crossed_t,
    permutation_per_category,
    safe_permutation,
    sign_flip,
    welch_t,
)
from jaxvalues.statistics.variance import components_interval, minimum_detectable_difference
from jaxvalues.study.plan import in_words
from jaxvalues.study.reading import Truth
from jaxvalues.study.results import RunResult, SystemResult

FEWEST_SIGNS = 6
"""The fewest runs of each side with which a test of signs can decide anything at 5 %."""

Place = tuple[str, ...]
"""The value of each repeated key, in words."""


def place_of(run: RunResult, keys: Sequence[str]) -> Place:
    """Where a run stands among runs that repeat `keys`."""
    return tuple(in_words({key: run.repeated[key] for key in keys}))


class Paired(NamedTuple):
    """The runs of two systems at the places that both have, in the order of a whole grid of them."""

    places: list[Place]
    keys: tuple[str, ...]
    """The repeated keys that have several levels."""
    shape: tuple[int, ...]
    """The number of levels of each of them; () for one place."""
    of_a: list[list[RunResult]]
    """At each place one run, or several where the other system combines over a key."""
    of_b: list[list[RunResult]]


def paired(a: SystemResult, b: SystemResult, keys: Sequence[str]) -> Paired | None:
    """The runs of two systems that share the repeated `keys`; None where no place has runs of both."""
    runs_a, runs_b = (_by_place(system, keys) for system in (a, b))
    both = [place for place in runs_a if place in runs_b]
    if not both:
        return None
    levels = whole_grid(both)
    places = list(product(*levels))
    axes = {key: len(of) for key, of in zip(keys, levels, strict=True) if len(of) > 1}
    of_a, of_b = ([runs[place] for place in places] for runs in (runs_a, runs_b))
    return Paired(places, tuple(axes), tuple(axes.values()), of_a, of_b)


def _by_place(system: SystemResult, keys: Sequence[str]) -> dict[Place, list[RunResult]]:
    """{values of `keys` in words: the runs that have them}, where none of these runs is missing."""
    found: dict[Place, list[RunResult]] = {}
    for run in system.runs:
        found.setdefault(place_of(run, keys), []).append(run)
    most = max(map(len, found.values()), default=0)
    return {place: runs for place, runs in found.items() if len(runs) == most}


def whole_grid(places: Collection[Place]) -> list[list[str]]:
    """The levels of every key whose combinations are all among `places`; all levels where nothing is missing.

    As long as a combination is missing, the level that misses most is left out.
    """
    there = set(places)
    levels = [list(dict.fromkeys(values)) for values in zip(*places, strict=True)]
    while not there.issuperset(product(*levels)):
        inside = [place for place in there if all(map(list.__contains__, levels, place))]
        count = len(list(product(*levels)))
        shares = [
            (sum(place[axis] == level for place in inside) * len(of) / count, axis, at)
            for axis, of in enumerate(levels)
            for at, level in enumerate(of)
            if len(of) > 1
        ]
        _, axis, at = min(shares)
        del levels[axis][at]
    return levels


def counts_of(truth: Truth, groups: Sequence[Sequence[RunResult]], shape: Sequence[int]) -> Counts:
    """Counts of runs, one group for each place of a grid of this `shape`, in order.

    A group has several runs for each value of a key over which the other system combines. Then its figure is their
    mean.
    """
    counts = truth.counts([run for runs in groups for run in runs])
    each = len(groups[0])
    inner = () if each == 1 else (each,)
    kind = Counts if each == 1 else MeanCounts
    hits, predicted = (part.reshape(*shape, *inner, *part.shape[1:]) for part in (counts.hits, counts.predicted))
    return kind(hits, predicted, counts.true, counts.sizes)


def grid_of(runs: Sequence[RunResult]) -> tuple[list[RunResult], list[int]]:
    """The runs of a system that its figures are over, every value of one repeated key with every value of the others,
    in the order of that grid; and the number of values of each key that has several."""
    placed = {place_of(run, tuple(run.repeated)): run for run in runs}
    levels = whole_grid(placed)
    return [placed[place] for place in product(*levels)], [len(of) for of in levels if len(of) > 1]


def interval_of(truth: Truth, runs: Sequence[RunResult], figure: Figure = "official_f1") -> Interval:
    """The interval of the mean figure of some runs, over conclusions and every key that they repeat."""
    found, shape = grid_of(runs)
    counts = counts_of(truth, [[run] for run in found], shape or [1])
    return components_interval(counts, figure=figure) if shape else resample(counts, figure=figure).interval(0)


def difference_of(truth: Truth, pair: Paired, figure: Figure) -> dict[str, Any]:
    """The interval and tests of the difference of two systems: fields of a `ContrastResult`.

    Where all differences are the same, as of systems in which nothing is random, repeated runs tell nothing: one run of
    each is tested, as fixed systems.
    """
    t = None
    if pair.shape:
        counts = counts_of(truth, pair.of_a, pair.shape), counts_of(truth, pair.of_b, pair.shape)
        figures_a, figures_b = (one.figure(figure) for one in counts)
        t = crossed_t(figures_a, figures_b)
    if t is None or t.se == 0:
        both = fixed_counts(truth, pair)
        interval = resample(both, figure=figure).interval(0, 1)
        p = safe_permutation(both, 0, 1, figure=figure)
        alone = {"over": pair.keys, "t": None, "welch": None, "sign_flip": None, "permutation": p, "p": p}
        return {**alone, "interval": interval, "detectable": minimum_detectable_difference(interval.se)}
    single = len(pair.shape) == 1
    return {
        "over": pair.keys,
        "interval": two_level_interval(*counts, figure=figure),
        "t": t,
        "welch": welch_t(figures_a, figures_b) if single else None,
        "sign_flip": sign_flip(figures_a, figures_b) if single and pair.shape[0] >= FEWEST_SIGNS else None,
        "permutation": None,
        "p": t.p,
        "detectable": minimum_detectable_difference(t.se, df=t.df),
    }


def fixed_counts(truth: Truth, pair: Paired) -> Counts:
    """Counts [2] of the first runs of two systems, taken as fixed; the figure of several runs is their mean."""
    a, b = pair.of_a[0], pair.of_b[0]
    most = math.lcm(len(a), len(b))
    return counts_of(truth, [list(one) * (most // len(one)) for one in (a, b)], [2])


def category_p(truth: Truth, pair: Paired) -> np.ndarray:
    """p [C] that the F1 of a category differs, Benjamini–Hochberg over the categories; nan without positives.

    The larger of two: that of whole conclusions swapped, which takes the runs as fixed, and that of t over the repeated
    keys, which speaks for new runs. Where a category's differences are all the same, as of systems in which nothing is
    random, it is the first alone.
    """
    counts = [counts_of(truth, groups, pair.shape or [1]) for groups in (pair.of_a, pair.of_b)]
    p = permutation_per_category(_pooled(*counts), 0, 1)
    if pair.shape:
        figures = [_category_f1(one) for one in counts]
        for category in np.flatnonzero(np.isfinite(p)):
            t = crossed_t(*(one[..., category] for one in figures))
            p[category] = max(p[category], t.p if t.se else 0)
    return benjamini_hochberg(p)


def _category_f1(counts: Counts) -> np.ndarray:
    """The F1 [..., C] of every category at each place, the mean where a place has several runs."""
    f1 = harmonic_mean(*precision_recall(*counts.totals))
    return f1.reshape(*counts.axes, -1, f1.shape[-1]).mean(axis=-2)


def _pooled(a: Counts, b: Counts) -> Counts:
    """Two systems, each with the counts of all its runs together: [2]."""
    runs = math.prod(a.axes)

    def together(part: np.ndarray) -> np.ndarray:  # [G, C], whether or not every place has several runs
        each = part.reshape(-1, *part.shape[-2:])
        return each.sum(axis=0) * (runs / len(each))

    sums = [np.stack([together(getattr(one, part)) for one in (a, b)]) for part in ("hits", "predicted")]
    return Counts(*sums, a.true * runs, a.sizes)
