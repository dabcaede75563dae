"""Figures from counts: equal to the official evaluator's, to figures of resampled arguments, and to numeric slopes."""

from __future__ import annotations

import numpy as np
import pytest

from jaxvalues.evaluation.official import score
from jaxvalues.statistics.counts import Counts, MeanCounts, count
from jaxvalues.statistics.f1 import FIGURES, figure_of, gradient_of, macro_scores
from jaxvalues.statistics.variance import mean_variance

RNG = np.random.default_rng(0)
TRUTH = RNG.random((200, 20)) < np.linspace(0.02, 0.4, 20)
DECISIONS = RNG.random((3, 200, 20)) < np.where(TRUTH, 0.6, 0.15)
GROUP = RNG.permutation(np.r_[np.arange(30), RNG.integers(0, 30, 170)])
COUNTS = count(TRUTH, DECISIONS, GROUP)


def test_two_categories_by_hand() -> None:
    # Precisions 2/4 and 3/3, recalls 2/2 and 3/6: both means are .75. F1 4/6 and 6/9.
    scores = macro_scores(np.array([2, 3]), np.array([4, 3]), np.array([2, 6]))
    assert scores == pytest.approx((0.75, 0.75, 0.75, 2 / 3))
    # A category without positives in the truth does not count, whatever was predicted.
    more = macro_scores(np.array([2, 3, 0]), np.array([4, 3, 9]), np.array([2, 6, 0]))
    assert more == pytest.approx(scores)
    nothing = macro_scores(np.zeros(2), np.zeros(2), np.array([2, 6]))
    assert nothing == (0, 0, 0, 0)


@pytest.mark.parametrize("figure", FIGURES)
def test_the_figure_is_the_score_of_all_arguments(figure: str) -> None:
    expected = [getattr(score(TRUTH, one), figure) for one in DECISIONS]
    assert COUNTS.axes == (3,)
    assert COUNTS.groups == 30
    assert COUNTS.figure(figure) == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(COUNTS.replicates(np.ones((1, 30)), figure)[0], expected, atol=1e-12)
    by_argument = count(TRUTH, DECISIONS)
    assert by_argument.groups == 200
    assert by_argument.figure(figure) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("figure", FIGURES)
def test_a_replicate_is_the_score_of_the_arguments_of_the_drawn_groups(figure: str) -> None:
    drawn = RNG.integers(0, 30, 30)
    rows = np.concatenate([np.flatnonzero(g == GROUP) for g in drawn])
    weights = np.bincount(drawn, minlength=30)[None]
    expected = [getattr(score(TRUTH[rows], one[rows]), figure) for one in DECISIONS]
    assert TRUTH[rows].any(axis=0).all()
    np.testing.assert_allclose(COUNTS.replicates(weights, figure)[0], expected, atol=1e-12)


@pytest.mark.parametrize("figure", FIGURES)
def test_leaving_out_a_group_is_the_score_of_the_other_arguments(figure: str) -> None:
    left = COUNTS.leave_one_out(figure)
    assert left.shape == (3, 30)
    for g in (0, 17):
        rest = g != GROUP
        expected = [getattr(score(TRUTH[rest], one[rest]), figure) for one in DECISIONS]
        np.testing.assert_allclose(left[:, g], expected, atol=1e-12)


def test_a_replicate_that_lost_a_category_takes_it_from_the_whole_split() -> None:
    counts = Counts([[[1, 2], [0, 1]]], [[[2, 2], [0, 3]]], [[1, 4], [0, 1]])
    ((replicate,),) = counts.replicates(np.array([[0, 2]]))
    precision = np.mean([1 / 2, 1 / 3])  # of the first category on the whole split, of the second in the replicate
    recall = np.mean([1, 1])
    assert replicate == pytest.approx(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize("figure", FIGURES)
def test_influence_is_the_derivative_by_a_groups_weight(figure: str) -> None:
    step = 1e-5
    slopes = COUNTS.replicates(1 + step * np.eye(30), figure) - COUNTS.replicates(1 - step * np.eye(30), figure)
    np.testing.assert_allclose(COUNTS.influence(figure), slopes.T / (2 * step), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(COUNTS.influence(figure).sum(axis=-1), 0, atol=1e-12)


@pytest.mark.parametrize("figure", FIGURES)
def test_derivatives_exist_where_nothing_is_predicted_or_true(figure: str) -> None:
    hits, predicted, true = np.array([3.0, 0, 0]), np.array([4.0, 0, 2]), np.array([6.0, 5, 0])
    slopes = gradient_of(figure, hits, predicted, true)
    assert np.isfinite(slopes).all()
    assert not np.any([one[2] for one in slopes])
    up = figure_of(figure, hits + np.array([1e-6, 0, 0]), predicted, true) - figure_of(figure, hits, predicted, true)
    assert slopes[0][0] == pytest.approx(up / 1e-6, rel=1e-4)


def test_the_order_of_arguments_and_leading_axes_do_not_matter() -> None:
    order = RNG.permutation(200)
    again = count(TRUTH[order], DECISIONS[:, order], GROUP[order])
    np.testing.assert_array_equal(again.hits, COUNTS.hits)
    np.testing.assert_array_equal(again.true, COUNTS.true)
    folded = count(TRUTH, np.stack([DECISIONS, DECISIONS[::-1]]), GROUP)
    assert folded.axes == (2, 3)
    np.testing.assert_allclose(folded.figure()[1], COUNTS.figure()[::-1])
    weights = RNG.multinomial(30, np.full(30, 1 / 30), 4)
    np.testing.assert_allclose(folded.replicates(weights)[:, 1], COUNTS.replicates(weights)[:, ::-1])
    np.testing.assert_allclose(folded[0].influence(), COUNTS.influence())


@pytest.mark.parametrize("figure", FIGURES)
def test_means_over_runs_are_means_of_figures_of_replicates_and_of_slopes(figure: str) -> None:
    decisions = RNG.random((3, 2, 200, 20)) < np.where(TRUTH, 0.6, 0.15)
    every = count(TRUTH, decisions, GROUP)
    means = MeanCounts(every.hits, every.predicted, every.true, every.sizes)
    weights = RNG.multinomial(30, np.full(30, 1 / 30), 5).astype(float)
    assert (means.axes, means.groups) == ((3,), 30)
    np.testing.assert_allclose(means.figure(figure), every.figure(figure).mean(axis=1))
    np.testing.assert_allclose(means.replicates(weights, figure), every.replicates(weights, figure).mean(axis=2))
    np.testing.assert_allclose(means.leave_one_out(figure), every.leave_one_out(figure).mean(axis=1))
    np.testing.assert_allclose(means.influence(figure), every.influence(figure).mean(axis=1))
    same = Counts(*(np.repeat(part[:, None], 2, axis=1) for part in (COUNTS.hits, COUNTS.predicted)), COUNTS.true)
    twice = MeanCounts(same.hits, same.predicted, COUNTS.true, COUNTS.sizes)
    assert mean_variance(twice, COUNTS[::-1], figure) == mean_variance(COUNTS, COUNTS[::-1], figure)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \[200, 20\], \[3, 200, 20\] and \[199\]"):
        count(TRUTH, DECISIONS, GROUP[1:])
    with pytest.raises(ValueError, match=r"expected \[..., G, C\] twice"):
        Counts(COUNTS.hits, COUNTS.predicted[..., :3, :], COUNTS.true)
    with pytest.raises(ValueError, match="expected 30 positive numbers"):
        Counts(COUNTS.hits, COUNTS.predicted, COUNTS.true, np.zeros(30))
    with pytest.raises(ValueError, match="no positive in any category"):
        count(np.zeros((4, 20)), np.ones((1, 4, 20)))
