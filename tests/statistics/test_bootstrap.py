"""Intervals by resampling: known cases, symmetry, and the time that eight systems take."""

from __future__ import annotations

import time

import numpy as np
import pytest

from jaxvalues.statistics.bootstrap import resample, two_level_interval, widened_percentiles
from jaxvalues.statistics.counts import Counts, count
from jaxvalues.statistics.interval import around
from jaxvalues.statistics.jackknife import effective_df, jackknife_bias, jackknife_se
from jaxvalues.statistics.variance import components_interval

RNG = np.random.default_rng(0)


def systems(number: int = 2, n: int = 600, groups: int = 60, clustered: bool = False) -> Counts:
    rng = np.random.default_rng(1)
    group = np.r_[np.arange(groups), rng.integers(0, groups, n - groups)]
    hard = rng.normal(size=groups)[group, None] if clustered else 0
    truth = rng.random((n, 20)) < 0.2
    found = rng.random((number, *truth.shape)) < np.where(truth, 1 / (1 + np.exp(hard)), 0.1)
    return count(truth, found, group)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = RNG.normal(size=50)
    left_out = (values.sum() - values) / 49
    assert jackknife_se(left_out) == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_the_jackknife_finds_the_bias_of_a_variance() -> None:
    # Divided by n, a variance is too small by its n-th part: the jackknife's estimate of that is exact.
    values = RNG.normal(size=50)
    left_out = np.array([np.delete(values, i).var() for i in range(50)])
    assert jackknife_bias(values.var(), left_out) == pytest.approx(-values.var(ddof=1) / 50)


def test_an_interval_covers_the_estimate_and_the_estimate_less_its_bias() -> None:
    plain, biased = around(0.4, 0.01, np.inf), around(0.4, 0.01, np.inf, bias=-0.005)
    assert (plain.low, plain.high) == pytest.approx((0.4 - 0.0196, 0.4 + 0.0196), abs=1e-5)
    assert (biased.low, biased.high) == pytest.approx((plain.low, plain.high + 0.005))
    assert around(0.99, 0.01, 5, lowest=0).high == 1
    assert around(0.01, 0.01, 5, lowest=0).low == 0


def test_effective_degrees_of_freedom() -> None:
    assert effective_df(np.zeros(9)) == 8
    assert effective_df(RNG.normal(size=20_000)) == pytest.approx(20_000, rel=0.05)
    # Ten large groups among a thousand that hardly count.
    deviations = np.r_[RNG.choice([-10, 10], 10), RNG.normal(size=990) / 10]
    assert 10 < effective_df(deviations) < 40


def test_sizes_decide_how_many_degrees_of_freedom_there_are() -> None:
    assert systems(n=60, groups=60).df == pytest.approx(59)
    group = np.r_[np.repeat(np.arange(10), 120), np.arange(10, 104)]
    truth = np.ones((len(group), 1))
    assert count(truth, truth[None], group).df == pytest.approx(10, abs=0.1)
    assert count(truth, truth[None]).df == len(group) - 1


def test_percentiles_are_widened_to_student_t() -> None:
    replicates = RNG.normal(size=400_000)
    assert widened_percentiles(replicates, np.inf) == pytest.approx((-1.96, 1.96), abs=0.02)
    assert widened_percentiles(replicates, 10) == pytest.approx((-2.228, 2.228), abs=0.03)
    assert widened_percentiles(np.full(100, 0.4), 5) == (0.4, 0.4)


def test_the_standard_error_is_that_of_the_replicates() -> None:
    counts = systems()
    resampled = resample(counts)
    for interval, replicates in (
        (resampled.interval(0), resampled.replicates[:, 0]),
        (resampled.interval(0, 1), resampled.replicates[:, 0] - resampled.replicates[:, 1]),
    ):
        assert interval.se == pytest.approx(replicates.std(), rel=0.1)
        assert interval.low < interval.estimate < interval.high
        assert interval.high - interval.low == pytest.approx(2 * 2 * interval.se, rel=0.2)


def test_conclusions_that_are_alike_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(30), 20)
    hard = rng.normal(size=30)[group, None] * 2
    truth = rng.random((600, 20)) < 0.2
    found = (rng.random((1, 600, 20)) < 1 / (1 + np.exp(hard))) & truth
    clustered, alone = (resample(count(truth, found, one)).interval(0) for one in (group, None))
    assert clustered.se > 2 * alone.se
    assert clustered.high - clustered.low > 2 * (alone.high - alone.low)


def test_a_difference_turns_round_and_a_system_does_not_differ_from_itself() -> None:
    resampled = resample(systems())
    there, back = resampled.interval(0, 1), resampled.interval(1, 0)
    assert (there.estimate, there.low, there.high) == pytest.approx((-back.estimate, -back.high, -back.low), abs=1e-9)
    assert there.se == pytest.approx(back.se)
    same = resampled.interval(0, 0)
    assert (same.estimate, same.se, same.low, same.high) == (0, 0, 0, 0)


def test_two_levels_agree_with_the_components_of_variance() -> None:
    counts = systems(12)
    two, components = (make(counts[:6], counts[6:]) for make in (two_level_interval, components_interval))
    assert two.estimate == pytest.approx(components.estimate)
    assert two.se == pytest.approx(components.se)
    assert two.high - two.low == pytest.approx(components.high - components.low, rel=0.25)
    back = two_level_interval(counts[6:], counts[:6])
    assert (back.low, back.high) == pytest.approx((-two.high, -two.low), abs=1e-9)
    same = two_level_interval(counts[:6], counts[:6])
    assert (same.low, same.high, same.se) == (0, 0, 0)


def test_seeds_that_scatter_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random((600, 20)) < 0.2
    quality = rng.uniform(0.3, 0.9, 5)[:, None, None]
    scattered = (rng.random((5, *truth.shape)) < quality) & truth
    steady = (rng.random((5, *truth.shape)) < 0.6) & truth
    a, b = (count(truth, one, np.arange(600) // 10) for one in (scattered, steady))
    figures = a.figure() - b.figure()
    interval = two_level_interval(a, b)
    # Nearly all of the variance is that of five seeds: Student's t with 4 degrees of freedom, and 10 % fewer drawn.
    assert interval.se == pytest.approx(figures.std(ddof=1) / np.sqrt(5), rel=0.05)
    assert interval.df == pytest.approx(4, abs=0.5)
    assert interval.high - interval.low > 4 * interval.se


def test_the_same_seed_gives_the_same_interval() -> None:
    counts = systems()
    assert resample(counts).interval(0, 1) == resample(counts).interval(0, 1)
    assert resample(counts, seed=1).interval(0, 1) != resample(counts).interval(0, 1)
    # Which other systems are there does not matter.
    assert resample(counts[:1]).interval(0) == resample(counts).interval(0)


def test_eight_systems_take_less_than_ten_seconds() -> None:
    counts = systems(8, n=1576, groups=104)
    start = time.process_time()
    resampled = resample(counts, replicates=4000)
    assert resampled.replicates.shape == (4000, 8)
    assert time.process_time() - start < 10
