"""Components of variance: by hand, from known laws, and on counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxvalues.statistics.counts import Counts, count
from jaxvalues.statistics.variance import (
    components_interval,
    mean_variance,
    minimum_detectable_difference,
    pseudo_values,
    split_counts,
    split_variance,
)

FACTORS = ("seed", "init", "template", "conclusion")


def made_up(seeds: int = 3) -> Counts:
    rng = np.random.default_rng(0)
    truth = rng.random((300, 20)) < 0.2
    found = rng.random((seeds, *truth.shape)) < np.where(truth, 0.6, 0.1)
    return count(truth, found, np.r_[np.arange(40), rng.integers(0, 40, 260)])


def test_two_factors_by_hand() -> None:
    # Row means 1, 4; column means 2, 3; the grand mean 2.5; residuals ±.5.
    split = split_variance(np.array([[1.0, 1.0], [3.0, 5.0]]), ("seed", "template"))
    assert {name: square.value for name, square in split.squares.items()} == pytest.approx(
        {("seed",): 9.0, ("template",): 1.0, ("seed", "template"): 1.0}
    )
    assert split.components == pytest.approx({"seed": 4.0, "template": 0.0, "interactions": 1.0})
    assert split.levels == {"seed": 2, "template": 2}
    # Of the mean over the two templates: what involves them is halved, the interaction too.
    assert split.averaged("template") == pytest.approx({"seed": 4.0, "template": 0.0, "interactions": 0.5})


def test_one_factor_is_the_sample_variance() -> None:
    values = np.random.default_rng(0).normal(size=9)
    split = split_variance(values, ("seed",))
    assert split.components == pytest.approx({"seed": values.var(ddof=1)})
    assert split.squares[("seed",)].df == 8


def test_components_are_found_again_on_average() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        values = (
            2 * rng.normal(size=(5, 1, 1, 1)) + 1 * rng.normal(size=(1, 4, 1, 1)) + 3 * rng.normal(size=(1, 1, 3, 1))
        )
        values = values + 1.5 * rng.normal(size=(5, 4, 1, 1)) + 4 * rng.normal(size=(5, 4, 3, 20))
        values = values + 2 * rng.normal(size=(1, 1, 1, 20))
        squares = split_variance(values, ("seed", "init", "template", "conclusion")).squares
        found.append([squares[(name,)].component for name in ("seed", "init", "template", "conclusion")])
        found[-1] += [
            squares[("seed", "init")].component,
            squares[("seed", "init", "template", "conclusion")].component,
        ]
    # A single estimate has few degrees of freedom, so the mean of 400 is known to about a tenth.
    np.testing.assert_allclose(np.mean(found, axis=0), [4, 1.05, 9, 4, 2.3, 16], rtol=0.13)


def test_counts_split_into_their_factors() -> None:
    counts = made_up(6)
    split = split_counts(
        Counts(*(part.reshape(2, 3, 40, 20) for part in (counts.hits, counts.predicted)), counts.true),
        ("seed", "template"),
    )
    assert split.levels == {"seed": 2, "template": 3, "conclusion": 40}
    assert set(split.components) == {"seed", "template", "conclusion", "interactions"}
    np.testing.assert_allclose(pseudo_values(counts).mean(axis=-1), counts.figure())
    # The variance over conclusions of one system is that of its influence.
    alone = split_counts(counts[0], ())
    influence = counts[0].influence() * 40
    assert alone.components == pytest.approx({"conclusion": influence.var(ddof=1)})


def test_the_variance_of_a_mean_counts_the_interaction_once() -> None:
    counts = made_up()
    variance = mean_variance(counts)
    assert variance.runs == pytest.approx(counts.figure().var(ddof=1) / 3)
    assert variance.df_runs == 2
    assert variance.total >= max(variance.runs, variance.conclusions)
    assert variance.total <= variance.runs + variance.conclusions
    # The systems here differ by chance alone, so that all of the seeds' variance is that of seed × conclusion.
    assert variance.both == pytest.approx(variance.runs, rel=2)
    # The same seeds twice: no difference, no variance.
    assert mean_variance(counts, counts).total == 0
    assert components_interval(counts, counts) == components_interval(counts[::-1], counts[::-1])
    assert components_interval(counts, counts).high == 0


def test_the_interval_of_a_difference_turns_round_with_it() -> None:
    counts = made_up(8)
    there, back = components_interval(counts[:4], counts[4:]), components_interval(counts[4:], counts[:4])
    assert (there.estimate, there.low, there.high) == pytest.approx((-back.estimate, -back.high, -back.low))
    assert there.se == pytest.approx(back.se)
    assert 1 < there.df < 39
    assert there.low < there.estimate < there.high


def test_the_minimum_detectable_difference() -> None:
    assert minimum_detectable_difference(0.01) == pytest.approx(0.028016, abs=1e-6)
    assert minimum_detectable_difference(0.01, power=0.9) == pytest.approx(0.032415, abs=1e-6)
    assert minimum_detectable_difference(0.01, df=4) > minimum_detectable_difference(0.01, df=40) > 0.028
    assert minimum_detectable_difference(0) == 0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: split_variance(np.ones((3, 1)), ("seed", "init")), r"shape \[3, 1\], expected an axis of 2 or more"),
        (lambda: split_variance(np.ones(3), ("seed", "init")), "for 2 factors"),
        (lambda: split_variance(np.array([[1, 2], [3, math.nan]]), ("seed", "init")), "some values are missing"),
        (lambda: mean_variance(made_up(1)), "expected an axis of 2 or more"),
        (lambda: mean_variance(made_up(3), made_up(2)), r"shapes \[3, 40, 20\] and \[2, 40, 20\]"),
        (lambda: minimum_detectable_difference(-1), "expected se of at least 0"),
    ],
)
def test_what_cannot_be_split_is_refused(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
