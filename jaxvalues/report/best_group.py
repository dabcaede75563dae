"""The best systems of a study: the one of the highest figure, and those that no test tells from it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from jaxvalues.data.conclusions import group_by_conclusion
from jaxvalues.report.words import FALSE_ALARMS
from jaxvalues.statistics.counts import count
from jaxvalues.statistics.interval import LEVEL
from jaxvalues.statistics.tests import holm, paired_t, permutation
from jaxvalues.study.plan import in_words
from jaxvalues.study.results import RunResult, StudyResults, SystemResult

_ROUNDING = 1e-12  # of float64 means
Words = tuple[str, ...]
"""The values of repeated keys: ("seed 0", "template cls")."""
Pairs = dict[Words, tuple[list[RunResult], list[RunResult]]]
"""{what runs of two systems share: the runs of each}."""


def best_group(results: StudyResults, split: str) -> frozenset[str]:
    """The system of the highest figure on a split, and those that no test tells from it; none of fewer than two.

    The test is a paired t over the runs that two systems share. For one run of each, and for runs that are all equal,
    it is a permutation of whole conclusions. The p are adjusted over these comparisons (Holm).
    """
    means = _means(results, split)
    if len(means) < 2:
        return frozenset()
    best = max(means, key=lambda name: means[name])
    others = [name for name in means if name != best]
    adjusted = holm([_p(results, _pairs(results, best, name), split) for name in others])
    return frozenset({best, *(name for name, p in zip(others, adjusted, strict=True) if p >= LEVEL)})


def how_found(results: StudyResults, split: str) -> str:
    """What the marks of the best group mean. For two systems or more that have runs."""
    means = _means(results, split)
    best = max(means, key=lambda name: means[name])
    compared = [_differences(results, _pairs(results, best, name), split) for name in means if name != best]
    fixed = any(map(_is_fixed, compared))
    tests = dict.fromkeys(map(_test_name, compared))
    said = f"Bold: the best system on {split}, and those not told from it by {', or '.join(tests)} (5 %, Holm)."
    return f"{said} {FALSE_ALARMS}" if fixed else said


def _test_name(differences: dict[Words, float]) -> str:
    if _is_fixed(differences):
        return "a permutation of whole conclusions where each side is one run or all its runs are equal"
    crossed = sum(len(set(values)) > 1 for values in zip(*differences, strict=True)) > 1
    return "a paired t test over " + ("the values of each crossed key" if crossed else "runs")


def _means(results: StudyResults, split: str) -> dict[str, float]:
    """{system with runs: mean figure}."""
    return {
        name: fmean(results.figure_of(run, split) for run in system.runs)
        for name, system in results.systems.items()
        if system.runs
    }


def _pairs(results: StudyResults, a: str, b: str) -> Pairs:
    """The runs of two systems by the values of the repeated keys that both have."""
    one, other = results.systems[a], results.systems[b]
    keys = [key for key in one.runs[0].repeated if key in other.runs[0].repeated]
    runs_a, runs_b = _by_repeat(one, keys), _by_repeat(other, keys)
    return {words: (runs, runs_b[words]) for words, runs in runs_a.items() if words in runs_b}


def _by_repeat(system: SystemResult, keys: Sequence[str]) -> dict[Words, list[RunResult]]:
    found: dict[Words, list[RunResult]] = {}
    for run in system.runs:
        found.setdefault(tuple(in_words({key: run.repeated[key] for key in keys})), []).append(run)
    return found


def _differences(results: StudyResults, pairs: Pairs, split: str) -> dict[Words, float]:
    """The difference of the mean figures of each pair."""
    means = {
        words: [fmean(results.figure_of(run, split) for run in side) for side in pair] for words, pair in pairs.items()
    }
    return {words: a - b for words, (a, b) in means.items()}


def _is_fixed(differences: dict[Words, float]) -> bool:
    """Whether differences do not vary over the runs, so that a t test says nothing."""
    values = list(differences.values())
    return len(values) < 2 or max(values) - min(values) < _ROUNDING


def _p(results: StudyResults, pairs: Pairs, split: str) -> float:
    """The p of the difference of two systems; 1 where they share no run."""
    differences = _differences(results, pairs, split)
    if not _is_fixed(differences):
        return _t_over_levels(differences)
    sides = next(iter(pairs.values()), ())
    if [len(side) for side in sides] != [1, 1]:
        return 1.0  # a mean over runs is no fixed system
    data = results.splits[split]
    decisions = np.stack([run.decisions[split] for side in sides for run in side])
    counts = count(data.labels, decisions, group_by_conclusion(data.arguments)[0])
    return permutation(counts, 0, 1, figure=results.study.metric)


def _t_over_levels(differences: dict[Words, float]) -> float:
    """The p of a paired t over the values of a repeated key; of several crossed keys, that of the key which says least.

    With crossed keys, runs that share a value are not independent: each key counts its own values only.
    """
    found = []
    for values in zip(*differences, strict=True):
        levels: dict[str, list[float]] = {}
        for value, difference in zip(values, differences.values(), strict=True):
            levels.setdefault(value, []).append(difference)
        if len(levels) > 1:
            found.append(paired_t([fmean(one) for one in levels.values()], np.zeros(len(levels))).p)
    return max(found)
