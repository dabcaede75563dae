"""The best systems of a study: the one of the highest figure, and those that no test tells from it."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import numpy as np

from jaxvalues.report.words import SAFE_SIDE
from jaxvalues.statistics.interval import LEVEL
from jaxvalues.statistics.tests import TTest, crossed_t, holm, safe_permutation
from jaxvalues.study.crossed import Paired, fixed_counts, grid_of, paired
from jaxvalues.study.reading import truths_of
from jaxvalues.study.results import StudyResults


def best_group(results: StudyResults, split: str) -> frozenset[str]:
    """The system of the highest figure on a split, and those that no test tells from it; none of fewer than two.

    The test is a t test over the runs that two systems share. For one run of each, and where the differences of all
    runs are equal, it is a permutation of whole conclusions. The p are adjusted over these comparisons (Holm).
    """
    means = _means(results, split)
    if len(means) < 2:
        return frozenset()
    best, others = _best_and_others(means)
    adjusted = holm([_p(results, best, name, split) for name in others])
    return frozenset({best, *(name for name, p in zip(others, adjusted, strict=True) if p >= LEVEL)})


def how_found(results: StudyResults, split: str) -> str:
    """What the marks of the best group mean. For two systems or more that have runs."""
    best, others = _best_and_others(_means(results, split))
    pairs = [_pair(results, best, name) for name in others]
    ways = [(_t(results, pair, split), 0 if pair is None else len(pair.shape)) for pair in pairs]
    tests = dict.fromkeys(_test_name(t, keys) for t, keys in ways)
    said = f"Bold: the best system on {split}, and those not told from it by {', or '.join(tests)} (5 %, Holm)."
    return f"{said} {SAFE_SIDE}" if any(t is None for t, _ in ways) else said


def _test_name(t: TTest | None, keys: int) -> str:
    if t is None:
        return "a permutation of whole conclusions where each side is one run or all its runs are equal"
    return "a paired t test over runs" if keys == 1 else "a t test over the values of each crossed key"


def _best_and_others(means: Mapping[str, float]) -> tuple[str, list[str]]:
    best = max(means, key=lambda name: means[name])
    return best, [name for name in means if name != best]


def _means(results: StudyResults, split: str) -> dict[str, float]:
    """{system with runs: mean figure}."""
    return {
        name: fmean(results.figure_of(run, split) for run in grid_of(system.runs)[0])
        for name, system in results.systems.items()
        if system.runs
    }


def _pair(results: StudyResults, a: str, b: str) -> Paired | None:
    """The runs of two systems at the values of the repeated keys that both have."""
    one, other = results.systems[a], results.systems[b]
    return paired(one, other, [key for key in one.runs[0].repeated if key in other.runs[0].repeated])


def _t(results: StudyResults, pair: Paired | None, split: str) -> TTest | None:
    """The t test of two systems; None where each is one run, or where all differences are equal and it says nothing."""
    if pair is None or not pair.shape:
        return None
    figures = (
        np.reshape([fmean(results.figure_of(run, split) for run in runs) for runs in side], pair.shape)
        for side in (pair.of_a, pair.of_b)
    )
    t = crossed_t(*figures)
    return t if t.se > 0 else None


def _p(results: StudyResults, a: str, b: str, split: str) -> float:
    """The p of the difference of two systems; 1 where they share no run."""
    if (pair := _pair(results, a, b)) is None:
        return 1.0
    if (t := _t(results, pair, split)) is not None:
        return t.p
    (truth,) = truths_of([results.splits[split]]).values()
    return safe_permutation(fixed_counts(truth, pair), 0, 1, figure=results.study.metric)
