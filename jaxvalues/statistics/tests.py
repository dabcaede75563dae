"""Tests of a difference, each for its own question.

| question | test |
|---|---|
| is A better than B on this test set, over the seeds | `paired_t`, and beside it `sign_flip` (exact, from six seeds) |
| the same, over seeds × templates or other crossed keys | `crossed_t` |
| the same, and A and B share no randomness | `welch_t` |
| do two fixed systems differ | `permutation`: whole conclusions are swapped; `safe_permutation` |
| in which categories do two fixed systems differ | `permutation_per_category`, adjusted by `benjamini_hochberg` |
| the same, over the seeds | the larger p of that and of `crossed_t` (`study.crossed.category_p`) |
| several declared contrasts | `holm` over their p |
| over folds | `nadeau_bengio` |

False alarms at nominal .05 in 4,000 simulations, each against its own target (`tests/statistics/test_simulation.py`),
with 3, 5 and 8 seeds: `paired_t` .053, .050 and .046; `welch_t` .034, .046 and .045; `sign_flip` 0, 0 and .041.
`crossed_t`, in 2,000 simulations of normal effects: .037 to .048 with 8 × 8 runs, .026 to .054 with 5 × 4, and at most
.020 with 3 × 2; as independent runs, the same differences raise false alarms in .11 to .48.
`permutation`: .051 for two systems of one kind; .064 where they have the same F1 but one predicts a quarter fewer
labels, as they cannot quite be swapped then. `safe_permutation`: .041 and .049. Any of 20 categories after adjustment,
where none differs: .053 (1,000 simulations).

Every p is two-sided. Dror et al. 2018 ("The Hitchhiker's Guide to Testing Statistical Significance in NLP") compare the
kinds. With n seeds a test of signs cannot go below 2 / 2ⁿ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jaxvalues.statistics.counts import Counts, parts
from jaxvalues.statistics.f1 import Figure, figure_of, gradient_of, harmonic_mean, precision_recall
from jaxvalues.statistics.interval import LEVEL
from jaxvalues.statistics.variance import crossed_variance

PERMUTATIONS = 4000
_EXACT = 20  # signs: a million patterns
_ROUNDING = 1e-12  # of float64 means


@dataclass(frozen=True)
class TTest:
    """A difference with its standard error, degrees of freedom, two-sided p and the interval that belongs to p."""

    difference: float
    se: float
    df: float
    p: float
    low: float
    high: float


def paired_t(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> TTest:
    """Student's t on the differences a - b [R] of the same R seeds: "on this test set", for new seeds.

    The test set is held fixed: nothing is said about other topics. Raises ValueError for fewer than two seeds and for
    different numbers of them.
    """
    differences = _differences(a, b)
    n = len(differences)
    return t_test(differences.mean(), differences.std(ddof=1) / math.sqrt(n), n - 1, level)


def crossed_t(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> TTest:
    """`paired_t` where several keys are repeated: a and b [R, M, …], every seed with every template.

    Runs that share a seed or a template are no independent ones: a t test over all R · M of them would raise false
    alarms in up to half of all cases. The standard error is that of new seeds and new templates
    (`variance.crossed_variance`), with Satterthwaite's degrees of freedom. With one axis it is `paired_t`. Raises
    ValueError for fewer than two levels of a key and for different shapes.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"the two systems have runs of the shapes {list(a.shape)} and {list(b.shape)}, expected one")
    if a.ndim == 1:
        return paired_t(a, b, level)
    variance, df = crossed_variance(a - b)
    return t_test((a - b).mean(), math.sqrt(variance), df, level)


def welch_t(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> TTest:
    """Welch's t between the seeds a [R] and b [S]: for methods that share no randomness.

    The same seed number does not make two methods share their draws, and pairing what is independent costs degrees of
    freedom. Raises ValueError for fewer than two seeds of either.
    """
    a, b = _numbers(a), _numbers(b)
    variances = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    total = float(variances.sum())
    spread = float((variances**2 / [len(a) - 1, len(b) - 1]).sum())
    df = total**2 / spread if spread > 0 else len(a) + len(b) - 2
    return t_test(a.mean() - b.mean(), math.sqrt(total), df, level)


def nadeau_bengio(differences: ArrayLike, n_train: int, n_test: int, level: float = LEVEL) -> TTest:
    """The corrected resampled t over K folds or resamplings (Nadeau & Bengio 2003).

    Training sets overlap, so the variance of the mean is (1/K + n_test / n_train) times that of the differences [K],
    with K - 1 degrees of freedom. Raises ValueError for fewer than two differences.
    """
    differences = _numbers(differences)
    n = len(differences)
    if n_train < 1 or n_test < 1:
        raise ValueError(f"a fold has {n_train} arguments for training and {n_test} for testing, expected at least one")
    variance = differences.var(ddof=1) * (1 / n + n_test / n_train)
    return t_test(differences.mean(), math.sqrt(variance), n - 1, level)


def t_test(difference: float, se: float, df: float, level: float = LEVEL) -> TTest:
    """A difference against 0 by Student's t.

    Without any variance (`se` 0) the difference is certain: p is 0, or 1 where the difference is 0.
    """
    difference, se = float(difference), float(se)
    if se < _ROUNDING:
        return TTest(difference, 0.0, float(df), float(abs(difference) < _ROUNDING), difference, difference)
    reach = float(stats.t.ppf(1 - level / 2, df)) * se
    p = float(2 * stats.t.sf(abs(difference) / se, df))
    return TTest(difference, se, float(df), p, difference - reach, difference + reach)


def sign_flip(a: ArrayLike, b: ArrayLike, *, seed: int = 0, permutations: int = PERMUTATIONS) -> float:
    """p of the mean difference a - b [R] under every choice of signs: exact up to 20 seeds, then sampled.

    It assumes nothing but that a difference is as likely as its opposite. It cannot go below 2 / 2ᴿ, so it decides
    nothing at .05 with fewer than six seeds. Raises ValueError as `paired_t`.
    """
    differences = _differences(a, b)
    n = len(differences)
    if n <= _EXACT:
        # The last sign stays: turning all signs changes no absolute value.
        patterns = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
        return float(_reaches(differences @ (1 - 2 * patterns.T), differences.sum()).mean())
    signs = np.random.default_rng(seed).choice((-1, 1), (permutations, n))
    return float((1 + _reaches(signs @ differences, differences.sum()).sum()) / (permutations + 1))


def permutation(
    counts: Counts,
    a: int,
    b: int,
    *,
    figure: Figure = "official_f1",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> float:
    """p of the difference of two fixed systems, when the two swap whole conclusions.

    `counts` are of systems [S], or of systems [S, M] whose figure is the mean of M runs (`MeanCounts`); `a` and `b` are
    two of them. In each permutation every conclusion goes over with
    probability 1/2: what A said about it is B's, and the other way round. p = (1 + #{|d*| ≥ |d|}) / (n + 1), so it is
    never 0, and a huge difference has 1 / (n + 1). The same `seed` swaps the same conclusions, so p does not depend on
    which system is called A. With arguments as groups, p is too small where their conclusions matter.
    """
    observed = counts[[a, b]].figure(figure)
    reached = 0
    for _, *sides in _swapped(counts, a, b, permutations, seed):
        differences = _difference(figure, sides, counts.totals[2])
        reached += int(_reaches(differences, observed[0] - observed[1]).sum())
    return (1 + reached) / (permutations + 1)


def safe_permutation(
    counts: Counts,
    a: int,
    b: int,
    *,
    figure: Figure = "official_f1",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> float:
    """The larger of two p: that of `permutation`, and the same of |d| / its standard error, by the same swaps.

    Swapping makes two systems alike that predict different numbers of labels. Then the plain p is a little too small,
    and so is the studentized one (Chung & Romano 2013, who make it exact in the limit of many groups), but seldom both.
    """
    true = counts.totals[2]
    both = [np.stack([labels[a], labels[b]]) for labels in (counts.hits, counts.predicted)]
    observed = counts[[a, b]].figure(figure)
    error = np.linalg.norm(np.subtract(*counts[[a, b]].influence(figure)))
    d = np.array([observed[0] - observed[1], (observed[0] - observed[1]) / max(error, _ROUNDING)])
    reached = np.zeros(2)
    for swap, *sides in _swapped(counts, a, b, permutations, seed):
        differences = _difference(figure, sides, true)
        of_one, of_other = (
            _influence(gradient_of(figure, *side, true), *both, counts.true, swap if at else 1 - swap)
            for at, side in enumerate(sides)
        )
        errors = np.linalg.norm(of_one - of_other, axis=-1)
        reached += [
            _reaches(differences, d[0]).sum(),
            _reaches(differences / np.maximum(errors, _ROUNDING), d[1]).sum(),
        ]
    return float((1 + reached.max()) / (permutations + 1))


def _difference(figure: Figure, sides: Sequence[Sequence[np.ndarray]], true: np.ndarray) -> np.ndarray:
    """The differences [m] of two sides, each the hits and predicted [..., m, C]; the mean over runs [...]."""
    one, other = (figure_of(figure, *side, true) for side in sides)
    return (one - other).reshape(-1, one.shape[-1]).mean(axis=0)


def _influence(
    slopes: tuple[np.ndarray, ...], hits: np.ndarray, predicted: np.ndarray, true: np.ndarray, of_first: np.ndarray
) -> np.ndarray:
    """The influence [m, G] of each group on the figure of one side in m permutations, as `Counts.influence`.

    `slopes` [..., m, C] are by hits, predicted and true. The side has the group of the first system where `of_first`
    [m, G] is 1, that of the second where it is 0; `hits` and `predicted` [2, ..., G, C] are of both.
    """
    by_hits, by_predicted, by_true = slopes
    first, second = (
        by_hits @ np.swapaxes(hits[at], -1, -2) + by_predicted @ np.swapaxes(predicted[at], -1, -2) for at in (0, 1)
    )
    found = np.where(of_first == 1, first, second) + by_true @ true.T
    return found.reshape(-1, *found.shape[-2:]).mean(axis=0)


def permutation_per_category(
    counts: Counts, a: int, b: int, *, permutations: int = 10 * PERMUTATIONS, seed: int = 0
) -> np.ndarray:
    """p of the difference in every category's F1 [C], by `permutation`; nan for a category without positives.

    McNemar's test would count the arguments of a conclusion as independent. The p say nothing about other seeds, and
    they are not adjusted: see `benjamini_hochberg`.
    """
    hits, predicted, true = counts.totals
    f1 = harmonic_mean(*precision_recall(hits[[a, b]], predicted[[a, b]], true))
    reached = np.zeros(len(true))
    for _, *sides in _swapped(counts, a, b, permutations, seed):
        one, other = (harmonic_mean(*precision_recall(*side, true)) for side in sides)
        reached += _reaches(one - other, f1[0] - f1[1]).sum(axis=0)
    return np.where(true > 0, (1 + reached) / (permutations + 1), np.nan)


def benjamini_hochberg(p: ArrayLike) -> np.ndarray:
    """Adjusted p [m] that control the false discovery rate (Benjamini & Hochberg 1995). nan stays nan, not counted."""
    p = np.asarray(p, np.float64)
    adjusted, known = np.full(p.shape, np.nan), ~np.isnan(p)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p[known], method="bh")
    return adjusted


def holm(p: ArrayLike) -> np.ndarray:
    """Adjusted p [m] that control the chance of any false claim, in the order given (Holm 1979)."""
    p = np.asarray(p, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p must be in [0, 1], not {p.tolist()}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def _swapped(
    counts: Counts, a: int, b: int, permutations: int, seed: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]]:
    """m permutations at a time: which groups [m, G] are swapped (1), and hits and predicted [..., m, C] of the one and
    of the other side."""
    rng = np.random.default_rng(seed)
    for part in parts(permutations, counts.groups):
        swap = rng.integers(0, 2, (part, counts.groups)).astype(np.float64)
        one, other = [], []
        for labels in (counts.hits, counts.predicted):
            moved = swap @ (labels[b] - labels[a])
            one.append(labels[a].sum(axis=-2)[..., None, :] + moved)
            other.append(labels[b].sum(axis=-2)[..., None, :] - moved)
        yield swap, one, other


def _reaches(values: np.ndarray, observed: np.ndarray | float) -> np.ndarray:
    """Whether absolute values are at least the observed one. What differs by rounding alone is equal."""
    return np.abs(values) >= np.abs(observed) - _ROUNDING


def _numbers(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"expected at least two finite numbers, not an array of the shape {list(values.shape)}")
    return values


def _differences(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    a, b = _numbers(a), _numbers(b)
    if len(a) != len(b):
        raise ValueError(f"the two systems have {len(a)} and {len(b)} seeds, expected the same ones")
    return a - b
