"""Intervals by resampling groups: conclusions, or arguments where the conclusions are unknown; with seeds, both.

Simulations with conclusions as uneven as the published ones decided how (`tests/statistics/test_simulation.py`). Ten
conclusions hold most of the arguments, so that resampled data sets vary less than new ones do, by about a tenth for
one system. BCa and basic intervals cover less than percentile intervals here (.86 to .90, 400 simulations), because
their corrections are themselves uncertain. What holds, with the coverage of nominal 95 % in 4,000 simulations of new
conclusions and seeds:

- one system: Student's t times the jackknife's standard error, with the degrees of freedom of the sizes, around the
  estimate and around the estimate less the jackknife's bias, so that both are covered. Rare categories make the figures
  of a sample lie below those of the population, so an interval that misses is mostly too low
  (.964; with 3, 5 and 8 seeds, by `variance.components_interval`, .963, .963 and .964; .961 to .964 for the mean
  category F1);
- a difference: percentiles of the bootstrap, widened from the normal to Student's t (Hesterberg 2015), and for fixed
  systems those less the bias too (.956, and .936 for the mean category F1, 700 simulations each; with 3, 5 and 8 seeds,
  by `two_level_interval`, .968, .963 and .959).

With 30 conclusions instead of 104, and for differences of the mean category F1 with three seeds, intervals err on the
safe side (up to .99).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from jaxvalues.statistics.counts import Counts, parts
from jaxvalues.statistics.f1 import Figure
from jaxvalues.statistics.interval import LEVEL, Interval, around
from jaxvalues.statistics.jackknife import effective_df, jackknife_bias, jackknife_se
from jaxvalues.statistics.variance import mean_variance, split_variance

REPLICATES = 4000


@dataclass(frozen=True, eq=False)
class Resampled:
    """Replicates of fixed systems on the same resampled groups, so that differences of any two can be read off."""

    estimates: np.ndarray
    """[S], the figure of every system."""
    replicates: np.ndarray
    """[B, S]."""
    left_out: np.ndarray
    """[S, G], the figure without each group (`Counts.leave_one_out`)."""
    df: float
    """`Counts.df`."""

    def interval(self, a: int, b: int | None = None, level: float = LEVEL) -> Interval:
        """The interval of the figure of system `a`, or of the difference a - b: "on new topics", systems held fixed.

        The standard errors are the jackknife's. Figures are within 0 and 1, differences within -1 and 1.
        """
        if b is None:
            estimate, left_out = self.estimates[a], self.left_out[a]
            bias = jackknife_bias(estimate, left_out)
            return around(estimate, jackknife_se(left_out), self.df, bias=bias, level=level, lowest=0.0)
        left_out = self.left_out[a] - self.left_out[b]
        df = effective_df(left_out)
        estimate = float(self.estimates[a] - self.estimates[b])
        low, high = widened_percentiles(self.replicates[:, a] - self.replicates[:, b], df, level)
        off = 2 * jackknife_bias(estimate, left_out)  # replicates lie off by the bias of the estimate, and so does it
        return Interval(estimate, jackknife_se(left_out), min(low, low - off), max(high, high - off), df)


def resample(
    counts: Counts, *, figure: Figure = "official_f1", replicates: int = REPLICATES, seed: int = 0
) -> Resampled:
    """Draws the groups of `counts` (systems [S]) with replacement, the same ones for all systems."""
    drawn = _drawn(counts, figure, replicates, seed)
    return Resampled(counts.figure(figure), drawn, counts.leave_one_out(figure), counts.df)


def two_level_interval(
    a: Counts,
    b: Counts,
    *,
    figure: Figure = "official_f1",
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """The interval of the mean difference a - b of the same runs: "on new topics too", for new seeds.

    The runs are those of R seeds [R], or of every combination of several repeated keys, such as seeds × templates
    [R, M]. Every replicate draws conclusions and the levels of every key with replacement. Drawn as they are, R seeds
    vary too little, by (R - 1) / R, and the interaction seed × conclusion would count three times (Owen 2007, "The
    pigeonhole bootstrap"). So conclusions are drawn for the mean over the runs, and what the drawn runs add is scaled
    to the variance of the runs less that of the interaction. The percentiles are widened to Student's t with
    Satterthwaite's degrees of freedom. Raises ValueError as `mean_variance`.

    For one system with several seeds, use `variance.components_interval`.
    """
    variance = mean_variance(a, b, figure)
    rng = np.random.default_rng(seed + 1)
    figures = a.figure(figure) - b.figure(figure)
    drawn = _drawn(a, figure, replicates, seed) - _drawn(b, figure, replicates, seed)
    drawn = drawn.reshape(replicates, -1).mean(axis=1)
    own = max(variance.runs - variance.both, 0.0)
    apart = _drawn_levels(figures - figures.mean(), replicates, rng)
    scale = math.sqrt(own / spread) if (spread := _spread_of_levels(figures)) > 0 else 0.0
    low, high = widened_percentiles(drawn + apart * scale, variance.df, level)
    return Interval(float(figures.mean()), math.sqrt(variance.total), low, high, variance.df)


def _drawn_levels(values: np.ndarray, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """The mean of `values` when the levels of every axis are drawn with replacement: [B]."""
    drawn = np.broadcast_to(values, (replicates, *values.shape))
    for _ in range(values.ndim):  # the first axis that is left
        n = drawn.shape[1]
        weights = rng.multinomial(n, np.full(n, 1 / n), replicates) / n
        drawn = np.einsum("bn,bn...->b...", weights, drawn)
    return drawn


def _spread_of_levels(values: np.ndarray) -> float:
    """The variance of `_drawn_levels`."""
    split = split_variance(values, tuple(map(str, range(values.ndim))))
    return sum(
        square.value * square.df / (values.size * math.prod(split.levels[one] for one in factors))
        for factors, square in split.squares.items()
    )


def widened_percentiles(replicates: np.ndarray, df: float, level: float = LEVEL) -> tuple[float, float]:
    """The percentiles of replicates [B] that lie as far out as Student's t does on the scale of the normal."""
    tail = stats.norm.sf(stats.t.ppf(1 - level / 2, df))
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return float(low), float(high)


def _drawn(counts: Counts, figure: Figure, replicates: int, seed: int) -> np.ndarray:
    """The figures of replicates whose groups are drawn with replacement: [B, ...], the same groups for a seed."""
    G = counts.groups
    rng = np.random.default_rng(seed)
    weights = (rng.multinomial(G, np.full(G, 1 / G), part).astype(np.float64) for part in parts(replicates, G))
    return np.concatenate([counts.replicates(one, figure) for one in weights])
