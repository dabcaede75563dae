"""Coverage and false alarms in simulations like the real data, each against its own target.

"New topics": every simulation draws new conclusions and new seeds, and the target is the population's figure. "This
test set": new seeds alone, and the target is the mean over infinitely many seeds. Two methods that share what is hard
differ in what they make of each conclusion (method × conclusion).

The small simulations are slow; those of 4,000 are exhaustive and print their figures (`-m exhaustive -s`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from simulation import TestSet, World, draw

from jaxvalues.statistics.bootstrap import resample, two_level_interval
from jaxvalues.statistics.counts import Counts
from jaxvalues.statistics.f1 import Figure
from jaxvalues.statistics.interval import Interval
from jaxvalues.statistics.tests import (
    benjamini_hochberg,
    paired_t,
    permutation,
    permutation_per_category,
    safe_permutation,
    sign_flip,
    welch_t,
)
from jaxvalues.statistics.variance import components_interval

SEEDS = (3, 5, 8)
WORLD = World()
OTHER = replace(WORLD, shift=0.9, signal=1.1)  # .008 better
EQUAL = replace(WORLD, shift=0.85, signal=1.092059823)  # predicts a quarter less, with the same official F1
STAGES = [pytest.param(150, marks=pytest.mark.slow), pytest.param(4000, marks=pytest.mark.exhaustive)]


def counts_of(test_set: TestSet, rng: np.random.Generator, seeds: int) -> Counts:
    return Counts(*test_set.run(rng, seeds), np.bincount(test_set.group))


def intervals(counts: Counts, seed: int, figure: Figure) -> Iterable[tuple[str, Interval, bool]]:
    """Every interval of the package, and whether it is of a difference."""
    fixed = resample(counts[:, 0], figure=figure, replicates=1000, seed=seed)
    yield "one system", fixed.interval(0), False
    yield "two systems", fixed.interval(0, 1), True
    for seeds in SEEDS:
        a, b = counts[0, :seeds], counts[1, :seeds]
        yield f"components of one, {seeds} seeds", components_interval(a, figure=figure), False
        yield f"components of two, {seeds} seeds", components_interval(a, b, figure=figure), True
        yield f"two levels, {seeds} seeds", two_level_interval(a, b, figure=figure, replicates=1000, seed=seed), True


def coverage(simulations: int, figure: Figure, conclusions: int = 0) -> dict[str, float]:
    rng = np.random.default_rng(simulations)
    one = WORLD.population(figure)
    difference = one - OTHER.population(figure)
    covered = defaultdict(list)
    for seed in range(simulations):
        counts = counts_of(draw(rng, WORLD, OTHER, conclusions=conclusions), rng, max(SEEDS))
        for name, interval, is_difference in intervals(counts, seed, figure):
            covered[name].append(interval.low <= (difference if is_difference else one) <= interval.high)
    return report({name: float(np.mean(values)) for name, values in covered.items()})


def report(rates: dict[str, float]) -> dict[str, float]:
    print("\n" + "\n".join(f"{name:32} {rate:.4f}" for name, rate in rates.items()))
    return rates


def chance(simulations: int, rate: float) -> float:
    """Three standard errors of a rate."""
    return 3 * (rate * (1 - rate) / simulations) ** 0.5


@pytest.mark.exhaustive
@pytest.mark.parametrize("simulations", STAGES)
def test_intervals_cover_new_topics(simulations: int) -> None:
    rates = coverage(simulations, "official_f1")
    slack = chance(simulations, 0.05) if simulations < 4000 else 0
    assert {name: rate for name, rate in rates.items() if not 0.93 - slack <= rate <= 0.97 + slack} == {}


@pytest.mark.exhaustive
@pytest.mark.parametrize(("figure", "conclusions"), [("mean_category_f1", 0), ("official_f1", 30)])
def test_intervals_of_other_data_err_on_the_safe_side(figure: Figure, conclusions: int) -> None:
    rates = coverage(500, figure, conclusions)
    assert {name: rate for name, rate in rates.items() if rate < 0.93 - chance(500, 0.05)} == {}


@pytest.mark.parametrize("simulations", STAGES)
@pytest.mark.parametrize(("other", "limit"), [(WORLD, 0.06), (EQUAL, 0.07)], ids=["same law", "same F1"])
def test_permutation_of_conclusions_seldom_raises_false_alarms(other: World, limit: float, simulations: int) -> None:
    # Two systems of one law can be swapped. With the same F1 but other numbers of predictions they cannot, quite.
    assert WORLD.population() == pytest.approx(other.population(), abs=1e-6)
    rng = np.random.default_rng(simulations)
    p = []
    for seed in range(simulations):
        counts = counts_of(draw(rng, WORLD, other), rng, 1)[:, 0]
        p.append([test(counts, 0, 1, permutations=500, seed=seed) for test in (permutation, safe_permutation)])
    rates = report(dict(zip(("plain", "safe"), (np.array(p) <= 0.05).mean(axis=0).tolist(), strict=True)))
    assert rates["safe"] <= 0.06 + (chance(simulations, 0.05) if simulations < 4000 else 0)
    assert rates["plain"] <= limit + (chance(simulations, 0.05) if simulations < 4000 else 0)


@pytest.mark.parametrize("simulations", STAGES)
def test_tests_over_seeds_raise_no_false_alarms_on_this_test_set(simulations: int) -> None:
    rng = np.random.default_rng(simulations)
    alarms: dict[str, list[bool]] = defaultdict(list)
    for _ in range(simulations // 40):
        test_set = draw(rng, WORLD, OTHER)
        figures = np.stack([counts_of(test_set, rng, max(SEEDS)).figure() for _ in range(40)])  # [40, 2, seeds]
        truth = (figures[:, 0] - figures[:, 1]).mean()  # over 320 seeds
        for one, other in figures:
            for seeds in SEEDS:
                a, b = one[:seeds] - truth, other[:seeds]
                alarms[f"paired t, {seeds} seeds"].append(paired_t(a, b).p <= 0.05)
                alarms[f"welch, {seeds} seeds"].append(welch_t(a, b).p <= 0.05)
                alarms[f"sign flip, {seeds} seeds"].append(sign_flip(a, b) <= 0.05)
    rates = report({name: float(np.mean(values)) for name, values in alarms.items()})
    limit = 0.06 + (chance(simulations, 0.05) if simulations < 4000 else 0)
    assert {name: rate for name, rate in rates.items() if rate > limit} == {}


@pytest.mark.parametrize("simulations", STAGES)
def test_a_category_is_seldom_claimed_where_none_differs(simulations: int) -> None:
    rng = np.random.default_rng(simulations)
    claimed = []
    for seed in range(simulations // 4):
        counts = counts_of(draw(rng, WORLD, WORLD), rng, 1)[:, 0]
        p = permutation_per_category(counts, 0, 1, permutations=1000, seed=seed)
        claimed.append(np.nanmin(benjamini_hochberg(p)) <= 0.05)
    rate = report({"any category": float(np.mean(claimed))})["any category"]
    assert rate <= 0.06 + chance(simulations // 4, 0.05)
