"""Tests of differences, on cases whose answer is known: by hand, from tables, from scipy, and by their own symmetry."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from jaxvalues.statistics.counts import Counts, MeanCounts, count
from jaxvalues.statistics.tests import (
    benjamini_hochberg,
    crossed_t,
    holm,
    nadeau_bengio,
    paired_t,
    permutation,
    permutation_per_category,
    safe_permutation,
    sign_flip,
    welch_t,
)

RNG = np.random.default_rng(0)
A, B = RNG.normal(0.45, 0.01, (2, 8))


def systems(quality: tuple[float, ...], n: int = 300, groups: int = 40) -> Counts:
    """Systems that find a label with these probabilities, and invent one with a tenth of the rest."""
    rng = np.random.default_rng(1)
    truth = rng.random((n, 20)) < 0.2
    found = [rng.random(truth.shape) < np.where(truth, q, (1 - q) / 10) for q in quality]
    return count(truth, np.stack(found), np.r_[np.arange(groups), rng.integers(0, groups, n - groups)])


def test_paired_t_is_that_of_scipy_and_its_interval_agrees_with_p() -> None:
    mine, theirs = paired_t(A, B), stats.ttest_rel(A, B)
    assert (mine.p, mine.df) == pytest.approx((theirs.pvalue, 7))
    assert (mine.low, mine.high) == pytest.approx(theirs.confidence_interval())
    edge = paired_t(A, B, level=mine.p)
    assert min(abs(edge.low), abs(edge.high)) == pytest.approx(0, abs=1e-12)


def test_welch_is_that_of_scipy() -> None:
    mine, theirs = welch_t(A, B[:3]), stats.ttest_ind(A, B[:3], equal_var=False)
    assert (mine.p, mine.df) == pytest.approx((theirs.pvalue, theirs.df))
    assert (mine.low, mine.high) == pytest.approx(theirs.confidence_interval())


def test_equal_seeds_have_no_variance() -> None:
    assert paired_t([0.4, 0.4], [0.3, 0.3]).p == 0
    assert paired_t([0.1 + 0.2] * 3, [0.3] * 3).p == 1  # a difference by rounding
    assert welch_t([0.4, 0.4], [0.4, 0.4, 0.4]).p == 1


def test_nadeau_bengio_by_hand() -> None:
    # Five folds: variance .001 times 1/5 + 20/80 = .45.
    differences = np.array([0.01, 0.05, 0.03, 0.09, 0.02])
    test = nadeau_bengio(differences, n_train=80, n_test=20)
    assert test.se == pytest.approx(np.sqrt(0.001 * 0.45))
    assert test.difference == pytest.approx(0.04)
    assert test.p == pytest.approx(2 * stats.t.sf(0.04 / np.sqrt(0.00045), 4))


def test_sign_flip_counts_all_patterns() -> None:
    differences = A - B + 0.003
    patterns = np.array(list(product((1, -1), repeat=8)))
    expected = (np.abs(patterns @ differences) >= abs(differences.sum()) - 1e-12).mean()
    assert sign_flip(A + 0.003, B) == pytest.approx(expected)


@pytest.mark.parametrize(("seeds", "smallest"), [(2, 0.5), (3, 0.25), (5, 0.0625), (6, 0.03125), (8, 0.0078125)])
def test_sign_flip_cannot_go_below_two_of_all_patterns(seeds: int, smallest: float) -> None:
    assert sign_flip(np.linspace(0.5, 0.6, seeds), np.zeros(seeds)) == smallest


def test_sign_flip_of_many_seeds_is_sampled() -> None:
    assert sign_flip(np.ones(30), np.zeros(30), permutations=999) == pytest.approx(1 / 1000)
    assert sign_flip(np.zeros(30), np.zeros(30)) == 1


def test_a_huge_difference_has_the_smallest_p() -> None:
    counts = systems((0.95, 0.2))
    for n in (99, 999, 4000):
        assert permutation(counts, 0, 1, permutations=n) == pytest.approx(1 / (n + 1))
        assert safe_permutation(counts, 0, 1, permutations=n) == pytest.approx(1 / (n + 1))
    assert np.all(permutation_per_category(counts, 0, 1, permutations=999) == pytest.approx(1 / 1000))


def test_no_difference_has_p_of_one() -> None:
    counts = systems((0.6,))[[0, 0]]
    assert permutation(counts, 0, 1, permutations=99) == 1
    assert safe_permutation(counts, 0, 1, permutations=99) == 1
    assert np.all(permutation_per_category(counts, 0, 1, permutations=99) == 1)


@pytest.mark.parametrize("figure", ["official_f1", "mean_category_f1"])
def test_which_system_comes_first_does_not_matter(figure: str) -> None:
    counts = systems((0.62, 0.6))
    there, back = (permutation(counts, *pair, figure=figure, permutations=500) for pair in ((0, 1), (1, 0)))
    assert 0.002 < there < 0.998
    assert there == back
    there, back = (safe_permutation(counts, *pair, figure=figure, permutations=500) for pair in ((0, 1), (1, 0)))
    assert 0.002 < there < 0.998
    assert there == back
    np.testing.assert_array_equal(
        permutation_per_category(counts, 0, 1, permutations=500),
        permutation_per_category(counts, 1, 0, permutations=500),
    )


def test_permutation_of_few_conclusions_is_the_exact_one() -> None:
    counts = systems((0.7, 0.6), n=60, groups=5)
    observed = np.subtract(*counts.figure())
    reached = []
    for swap in product((0, 1), repeat=5):
        keep = np.array(swap)[:, None]
        sides = [
            Counts(
                np.where(keep, counts.hits[i], counts.hits[1 - i])[None],
                np.where(keep, counts.predicted[i], counts.predicted[1 - i])[None],
                counts.true,
            ).figure()[0]
            for i in (0, 1)
        ]
        reached.append(abs(sides[0] - sides[1]) >= abs(observed) - 1e-12)
    assert permutation(counts, 0, 1, permutations=20_000) == pytest.approx(np.mean(reached), abs=0.02)


def test_the_safe_permutation_is_the_larger_p_of_the_difference_with_and_without_its_error() -> None:
    counts = systems((0.63, 0.6), n=60, groups=6)
    found = []
    for swap in product((0, 1), repeat=6):
        keep = np.array(swap)[:, None]
        hits, predicted = (
            np.stack([np.where(keep, labels[i], labels[1 - i]) for i in (0, 1)])
            for labels in (counts.hits, counts.predicted)
        )
        swapped = Counts(hits, predicted, counts.true)
        difference = abs(np.subtract(*swapped.figure()))
        found.append((difference, difference / np.linalg.norm(np.subtract(*swapped.influence()))))
    reached = np.array(found) >= np.array(found[-1]) - 1e-9  # the last keeps everything
    exact = reached.mean(axis=0)
    assert exact[0] != exact[1]
    assert safe_permutation(counts, 0, 1, permutations=20_000) == pytest.approx(exact.max(), abs=0.02)


def test_a_category_without_positives_has_no_p() -> None:
    counts = systems((0.7, 0.6))
    true = counts.true.copy()
    true[:, 4] = 0
    hits = counts.hits.copy()
    hits[..., 4] = 0
    p = permutation_per_category(Counts(hits, counts.predicted, true), 0, 1, permutations=99)
    assert np.flatnonzero(np.isnan(p)).tolist() == [4]
    assert np.flatnonzero(np.isnan(benjamini_hochberg(p))).tolist() == [4]


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04 times 4 3 2 1, never falling.
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1, 1])
    assert holm([]).shape == (0,)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        holm([0.1, np.nan])


def test_benjamini_hochberg_by_hand() -> None:
    # Sorted .01 .02 .03 .5 times 4/1 4/2 4/3 4/4; each at most the next.
    np.testing.assert_allclose(benjamini_hochberg([0.5, 0.02, 0.01, 0.03]), [0.5, 0.04, 0.04, 0.04])
    np.testing.assert_allclose(benjamini_hochberg([0.5, 0.02, np.nan, 0.01, 0.03]), [0.5, 0.04, np.nan, 0.04, 0.04])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: paired_t([0.4], [0.3]), "at least two finite numbers"),
        (lambda: paired_t([0.4, np.nan], [0.3, 0.2]), "at least two finite numbers"),
        (lambda: sign_flip([0.4, 0.5, 0.6], [0.3, 0.2]), "3 and 2 seeds"),
        (lambda: welch_t([0.4, 0.5], [0.3]), "at least two finite numbers"),
        (lambda: nadeau_bengio([0.1, 0.2], 0, 5), "0 arguments for training"),
    ],
)
def test_too_few_numbers_are_refused(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize("spread", [(0, 1, 0.5), (1, 1, 0.5), (0.5, 0.5, 1)], ids=["templates alone", "both", "noise"])
def test_crossed_repeats_raise_no_false_alarms(spread: tuple[float, float, float]) -> None:
    """8 seeds × 8 templates are 64 runs that share them. Taken as 64 independent ones, a third to a half are alarms."""
    rng, simulations = np.random.default_rng(0), 1000
    alarms, flat = 0, 0
    for _ in range(simulations):
        seed, template, rest = (
            scale * rng.normal(size=size) for scale, size in zip(spread, [(8, 1), 8, (8, 8)], strict=True)
        )
        values = seed + template + rest
        alarms += crossed_t(values, np.zeros((8, 8))).p <= 0.05
        flat += paired_t(values.ravel(), np.zeros(64)).p <= 0.05
    assert alarms / simulations <= 0.06 + 3 * (0.05 * 0.95 / simulations) ** 0.5
    assert flat / simulations > 0.2


def test_a_crossed_test_of_one_key_is_the_paired_one() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 6))
    assert crossed_t(a, b) == paired_t(a, b)
    # By hand: (MS of rows + MS of columns - MS of both) / 6 for 2 × 3 runs.
    values = np.array([[1.0, 2, 3], [2, 5, 4]])
    squares = 3 * np.square([2, 11 / 3] - values.mean()).sum(), np.square([1.5, 3.5, 3.5] - values.mean()).sum()
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    means = squares[0], 2 * squares[1] / 2, np.square(rest).sum() / 2
    assert crossed_t(values, np.zeros((2, 3))).se ** 2 == pytest.approx((means[0] + means[1] - means[2]) / 6)
    with pytest.raises(ValueError, match=r"shapes \[2, 3\] and \[3, 2\]"):
        crossed_t(values, values.T)


def test_systems_that_are_means_of_runs_swap_conclusions_in_all_of_them() -> None:
    rng = np.random.default_rng(5)
    true = rng.integers(0, 4, (30, 5))
    hits = rng.binomial(true, 0.6, (2, 3, 30, 5))
    predicted = hits + rng.integers(0, 3, hits.shape)
    means = MeanCounts(hits, predicted, true)
    assert means[[0, 1]].figure().shape == (2,)
    once = MeanCounts(hits[:, :1], predicted[:, :1], true)
    alone = Counts(hits[:, 0], predicted[:, 0], true)
    assert permutation(once, 0, 1, permutations=300) == permutation(alone, 0, 1, permutations=300)
    assert permutation(means, 0, 1, permutations=300) == permutation(means, 1, 0, permutations=300)
    assert safe_permutation(once, 0, 1, permutations=300) == safe_permutation(alone, 0, 1, permutations=300)
    assert safe_permutation(means, 0, 1, permutations=300) == safe_permutation(means, 1, 0, permutations=300)
    right = np.broadcast_to(true, (3, 30, 5))
    better = MeanCounts(np.stack([right, hits[1]]), np.stack([right, predicted[1]]), true)
    assert permutation(better, 0, 1, permutations=300) == pytest.approx(1 / 301)
