"""Sufficient statistics: what the arguments of each conclusion contribute to every figure.

A figure of the official score depends on the data only through counts per category. So per conclusion three rows of
counts are enough, and a resampled data set is a weight for every conclusion: one matrix product makes thousands of
replicates. Where arguments are resampled instead, every argument is a group of its own.

Arguments are nested in conclusions and their labels correlate there, so standard errors that resample arguments are
about half of what they should be (Miller 2024, arXiv 2411.00640, on clustered errors).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jaxvalues.statistics.f1 import Figure, figure_of, gradient_of


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of systems on the same arguments, per group (conclusion) and category.

    `hits` (true positives) and `predicted` (predicted positives) are [..., G, C]. The leading axes are systems, seeds,
    templates, as the caller likes. `true` (positives in the truth) is [G, C], the same for all. `sizes` [G] are the
    numbers of arguments; without them the groups count as equally large.

    Raises ValueError for arrays whose shapes do not fit, and for a truth without positives.
    """

    hits: np.ndarray
    predicted: np.ndarray
    true: np.ndarray
    sizes: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("hits", "predicted", "true"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        if self.hits.shape != self.predicted.shape or self.hits.shape[-2:] != self.true.shape or self.true.ndim != 2:
            shapes = [list(values.shape) for values in (self.hits, self.predicted, self.true)]
            raise ValueError(
                f"hits, predicted and true have the shapes {shapes}, expected [..., G, C] twice and [G, C]"
            )
        if not self.true.any():
            raise ValueError("the truth has no positive in any category")
        sizes = np.ones(len(self.true)) if self.sizes is None else np.asarray(self.sizes, np.float64)
        if sizes.shape != (len(self.true),) or not (sizes > 0).all():
            raise ValueError(
                f"the sizes have the shape {list(sizes.shape)}, expected {len(self.true)} positive numbers"
            )
        object.__setattr__(self, "sizes", sizes)

    def __getitem__(self, index: object) -> Counts:
        """The same groups of some systems: an index of the leading axes."""
        return type(self)(self.hits[index], self.predicted[index], self.true, self.sizes)

    @property
    def groups(self) -> int:
        return len(self.true)

    @property
    def df(self) -> float:
        """The degrees of freedom of a variance over the groups: at most G - 1, fewer where a few hold most arguments.

        It is (Σ n²)² / Σ n⁴ for groups of n arguments (Satterthwaite 1946), as if a group's deviation grew with its
        size. The published test split has 104 conclusions, of which ten hold four fifths of the arguments: 10.
        """
        squares = self.sizes**2
        return float(min(squares.sum() ** 2 / (squares**2).sum(), self.groups - 1))

    @property
    def axes(self) -> tuple[int, ...]:
        """The lengths of the leading axes."""
        return self.hits.shape[:-2]

    @cached_property
    def totals(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hits [..., C], predicted [..., C] and true [C] of the whole split."""
        return self.hits.sum(axis=-2), self.predicted.sum(axis=-2), self.true.sum(axis=-2)

    def figure(self, figure: Figure = "official_f1") -> np.ndarray:
        """The figure on the whole split: [...]."""
        return figure_of(figure, *self.totals)

    def replicates(self, weights: np.ndarray, figure: Figure = "official_f1") -> np.ndarray:
        """The figure on resampled groups: [B, ...] for weights [B, G], how often each replicate has each group.

        The categories are those of the whole split in every replicate. A category whose positives a replicate lost
        enters it with its precision, recall and F1 on the whole split: the replicate tells nothing about it.
        """
        return figure_of(figure, *self._weighted(weights), whole=self.totals)

    def leave_one_out(self, figure: Figure = "official_f1") -> np.ndarray:
        """The figure without each group: [..., G]. Lost categories count as in `replicates`."""
        left = [np.expand_dims(total, -2) - part for total, part in zip(self.totals, self._parts, strict=True)]
        whole = tuple(np.expand_dims(total, -2) for total in self.totals)
        return figure_of(figure, *left, whole=whole)

    def influence(self, figure: Figure = "official_f1") -> np.ndarray:
        """The derivative of the figure by each group's weight: [..., G]. It sums to 0 over the groups.

        The sum of its squares estimates the variance of the figure when groups are drawn anew (the infinitesimal
        jackknife, which is the sandwich estimator with clusters).
        """
        slopes = gradient_of(figure, *self.totals)
        return sum((part @ slope[..., None])[..., 0] for part, slope in zip(self._parts, slopes, strict=True))

    @property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.hits, self.predicted, self.true

    def _weighted(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hits and predicted [B, ..., C] and true [B, 1..., C] of resampled groups."""
        (G, C), leading = self.true.shape, self.hits.shape[:-2]
        hits, predicted = (
            (weights @ np.moveaxis(part, -2, 0).reshape(G, -1)).reshape(len(weights), *leading, C)
            for part in (self.hits, self.predicted)
        )
        return hits, predicted, (weights @ self.true).reshape(len(weights), *[1] * len(leading), C)


@dataclass(frozen=True, eq=False)
class MeanCounts(Counts):
    """Counts [..., M, G, C] of which every figure is the mean over M runs, such as those of all templates of a seed."""

    @property
    def axes(self) -> tuple[int, ...]:
        return self.hits.shape[:-3]

    def figure(self, figure: Figure = "official_f1") -> np.ndarray:
        return super().figure(figure).mean(axis=-1)

    def replicates(self, weights: np.ndarray, figure: Figure = "official_f1") -> np.ndarray:
        return super().replicates(weights, figure).mean(axis=-1)

    def leave_one_out(self, figure: Figure = "official_f1") -> np.ndarray:
        return super().leave_one_out(figure).mean(axis=-2)

    def influence(self, figure: Figure = "official_f1") -> np.ndarray:
        return super().influence(figure).mean(axis=-2)


def parts(replicates: int, groups: int) -> Iterator[int]:
    """Numbers of replicates that add up to all of them, each with at most 32 MB of weights (or one replicate)."""
    size = max(1, 4_000_000 // groups)
    for start in range(0, replicates, size):
        yield min(size, replicates - start)


def count(truth: np.ndarray, decisions: np.ndarray, group: np.ndarray | None = None) -> Counts:
    """Counts of decisions [..., n, C] of 0 and 1 against the truth [n, C].

    `group` [n] is the number of each argument's conclusion, 0 to G - 1. Without it every argument is a group of its
    own. Raises ValueError for arrays whose lengths differ.
    """
    truth, decisions = np.asarray(truth, bool), np.asarray(decisions, bool)
    group = np.arange(len(truth)) if group is None else np.asarray(group)
    if decisions.shape[-2:] != truth.shape or len(group) != len(truth):
        raise ValueError(
            f"truth, decisions and groups have the shapes {list(truth.shape)}, {list(decisions.shape)} and "
            f"{list(group.shape)}, expected [n, C], [..., n, C] and [n]"
        )
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))

    def per_group(labels: np.ndarray) -> np.ndarray:
        return np.add.reduceat(labels[..., order, :], starts, axis=-2, dtype=np.int64)

    sizes = np.diff(np.append(starts, len(truth)))
    return Counts(per_group(decisions & truth), per_group(decisions), per_group(truth), sizes)
