"""Intervals by resampling groups: conclusions, or arguments where nobody knows the conclusions; with seeds, both.

Plain percentile intervals fail here. The bootstrap distribution of the official F1 lies below the estimate, as the
estimate lies below the population's figure, because rare categories lose positives: the quantiles move from the one
side to the other. And a few conclusions hold most of the arguments, so the replicates vary less than new data do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from jaxvalues.statistics.counts import Counts
from jaxvalues.statistics.f1 import Figure
from jaxvalues.statistics.interval import LEVEL, Interval

REPLICATES = 4000


@dataclass(frozen=True, eq=False)
class Resampled:
    """Replicates of systems on the same resampled groups, so that differences of any two can be read off."""

    estimates: np.ndarray
    """[S], the figure of every system."""
    replicates: np.ndarray
    """[B, S]."""
    left_out: np.ndarray
    """[S, G], the figure without each group (`Counts.leave_one_out`)."""
    lowest: float = 0.0
    highest: float = 1.0

    def interval(self, a: int, b: int | None = None, level: float = LEVEL) -> Interval:
        """The interval of the figure of system `a`, or of the difference a - b: "on new topics", systems held fixed.

        It is the BCa interval (Efron 1987) with Student's t in place of the normal (Hesterberg 2015, "expanded"): the
        degrees of freedom are `effective_df` of the groups. The standard error is the jackknife's.
        """
        minus = b is not None
        estimate = self.estimates[a] - (self.estimates[b] if minus else 0)
        replicates = self.replicates[:, a] - (self.replicates[:, b] if minus else 0)
        left_out = self.left_out[a] - (self.left_out[b] if minus else 0)
        low, high = corrected_percentiles(estimate, replicates, left_out, level)
        least = self.lowest - self.highest if minus else self.lowest
        return Interval(
            estimate=float(estimate),
            se=jackknife_se(left_out),
            low=max(low, least),
            high=min(high, self.highest),
            df=effective_df(left_out),
        )


def resample(
    counts: Counts, *, figure: Figure = "official_f1", replicates: int = REPLICATES, seed: int = 0
) -> Resampled:
    """Draws the groups of `counts` (systems [S]) with replacement, the same ones for all systems."""
    G = counts.groups
    weights = np.random.default_rng(seed).multinomial(G, np.full(G, 1 / G), replicates).astype(np.float64)
    return Resampled(counts.figure(figure), counts.replicates(weights, figure), counts.leave_one_out(figure))


def corrected_percentiles(
    estimate: float, replicates: np.ndarray, left_out: np.ndarray, level: float = LEVEL
) -> tuple[float, float]:
    """The ends of the BCa interval from replicates [B] and the figure without each group [G], widened by Student's t.

    Replicates that are all the same give an interval without width.
    """
    deviations = left_out.mean() - left_out
    square = float(np.square(deviations).sum())
    if square <= 0 or np.ptp(replicates) <= 0:
        return float(estimate), float(estimate)
    below = ((replicates < estimate).mean() + (replicates <= estimate).mean()) / 2
    edge = 1 / len(replicates)
    bias = stats.norm.ppf(np.clip(below, edge, 1 - edge))
    acceleration = float((deviations**3).sum()) / (6 * square**1.5)
    t = stats.t.ppf(1 - level / 2, effective_df(left_out))
    reached = bias + np.array([-t, t])
    low, high = np.quantile(replicates, stats.norm.cdf(bias + reached / np.maximum(1 - acceleration * reached, 1e-3)))
    return float(low), float(high)


def jackknife_se(left_out: np.ndarray) -> float:
    """The standard error from the figure without each of G groups (Efron & Stein 1981); it errs on the safe side."""
    return float(np.sqrt((len(left_out) - 1) * left_out.var()))


def effective_df(left_out: np.ndarray) -> float:
    """How many degrees of freedom a variance over G groups has, from the figure without each of them: at most G - 1.

    Ten of a hundred conclusions hold four fifths of the arguments. Then few of the squares decide their sum, and it has
    the degrees of freedom 3 (Σ d²)² / Σ d⁴ (Satterthwaite 1946, with the fourth moments of normal deviations d).
    """
    squares = np.square(left_out - left_out.mean())
    fourth = float(np.square(squares).sum())
    most = len(left_out) - 1
    return float(np.clip(3 * squares.sum() ** 2 / fourth, 1, most)) if fourth > 0 else float(most)
