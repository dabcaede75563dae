"""Made-up test sets and systems like the real ones: clustered arguments, rare categories, seeds, method × conclusion.

A *world* is a law of labels and of systems. An argument i of conclusion g has the label c if a latent normal z is
above a cut. A system predicts c if κ z + (what is hard about the argument) + (what this method makes of the conclusion)
+ (its seed) + (its seed on this argument) is above another cut. The law is known, so the population's figures are too:
`World.population` integrates them.

Sizes are those of the 104 conclusions of the published test split (median 3, largest 183), prevalences those of its
categories (from .0165 to .37).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from jaxvalues.statistics.f1 import Figure, figure_of

SIZES = np.repeat(
    [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 100, 105, 110, 115, 119, 124, 132, 133, 145, 183],
    [30, 17, 7, 18, 6, 7, 3, 2, 2, 2, *[1] * 10],
)
# fmt: off
PREVALENCE = np.array(
    [.0907, .2481, .0489, .0165, .2614, .0685, .0666, .0609, .3407, .2519,
     .1066, .1821, .0336, .0470, .2132, .1034, .3731, .0914, .1237, .2989]
)
# fmt: on
C = len(PREVALENCE)


@dataclass(frozen=True)
class World:
    """Standard deviations on the scale of the labels' latent normal; the defaults give what was measured.

    Those are: an official F1 of about .45 to .5, its standard error .008 to .022, that of a difference .009 to .013, a
    standard deviation over seeds of about .008, and an intra-class correlation of the labels of about .15.
    """

    clustering: float = 0.30
    """The share of a label's latent variance that the conclusion decides."""
    signal: float = 1.0
    """How strongly scores follow the labels."""
    hardness: float = 0.8
    """What is hard about an argument, for every system."""
    conclusion: float = 0.5
    """What is hard about a conclusion, for every system."""
    method: float = 0.5
    """What one method makes of an argument, the same in all its seeds."""
    interaction: float = 0.4
    """Method × conclusion: what one method makes of a conclusion, the same in all its seeds."""
    seed: float = 0.2
    """What a seed does to a category as a whole."""
    seed_argument: float = 0.6
    """What a seed does to an argument."""
    shift: float = 1.15
    """How much lower than calibrated a system's cut is, as a factor of the number of predictions."""

    @property
    def _noise(self) -> float:
        """The standard deviation of a score around signal · z, without the seed's main effect."""
        parts = (self.hardness, self.conclusion, self.method, self.interaction, self.seed_argument)
        return float(np.sqrt(np.sum(np.square(parts))))

    @property
    def label_cut(self) -> np.ndarray:
        return norm.isf(PREVALENCE)

    @property
    def score_cut(self) -> np.ndarray:
        spread = np.sqrt(self.signal**2 + self._noise**2 + self.seed**2)
        return spread * norm.isf(np.minimum(PREVALENCE * self.shift, 0.6))

    def population(self, figure: Figure = "official_f1", seeds: int = 4000) -> float:
        """The figure on infinitely many arguments, on average over seeds."""
        z, step = np.linspace(-6, 6, 601, retstep=True)
        shift = np.linspace(-5, 5, 41) * self.seed
        above = norm.sf((self.score_cut[:, None, None] - shift[:, None] - self.signal * z) / self._noise)  # [C, s, z]
        weight = norm.pdf(z) * step
        predicted = (above * weight).sum(-1)
        hits = (above * weight * (z > self.label_cut[:, None, None])).sum(-1)
        draws = np.random.default_rng(1).normal(size=(C, seeds)) * self.seed
        grid = shift if self.seed else np.arange(len(shift))
        predicted, hits = (
            np.stack([np.interp(drawn, grid, of_category) for drawn, of_category in zip(draws, part, strict=True)])
            for part in (predicted, hits)
        )
        return float(figure_of(figure, hits.T, predicted.T, PREVALENCE).mean())


@dataclass(frozen=True, eq=False)
class TestSet:
    """One draw of conclusions: their sizes, the labels, and what every method makes of each argument."""

    group: np.ndarray  # [n]
    truth: np.ndarray  # [n, C] bool
    scores: np.ndarray  # [methods, n, C] without seeds
    worlds: tuple[World, ...]

    __test__ = False

    def run(self, rng: np.random.Generator, seeds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Trains every method with new seeds. Counts: hits and predicted [methods, seeds, G, C], true [G, C]."""
        decided = np.empty((len(self.worlds), seeds, *self.truth.shape), np.bool_)
        for m, world in enumerate(self.worlds):
            noise = rng.standard_normal((seeds, *self.truth.shape), np.float32) * np.float32(world.seed_argument)
            noise += rng.standard_normal((seeds, 1, C), np.float32) * np.float32(world.seed)
            noise += self.scores[m]
            decided[m] = noise > world.score_cut.astype(np.float32)
        starts = np.flatnonzero(np.diff(self.group, prepend=-1))

        def count(labels: np.ndarray) -> np.ndarray:
            return np.add.reduceat(labels, starts, axis=-2, dtype=np.int16)

        return count(decided & self.truth), count(decided), count(self.truth)


def draw(rng: np.random.Generator, *worlds: World, conclusions: int = 0, fixed_sizes: bool = False) -> TestSet:
    """A new test set for the methods `worlds`, which share what is hard. Sizes are drawn with replacement."""
    first = worlds[0]
    sizes = SIZES if fixed_sizes else rng.choice(SIZES, conclusions or len(SIZES))
    group = np.repeat(np.arange(len(sizes)), sizes)
    n, G = len(group), len(sizes)

    def normal(rows: int, scale: float) -> np.ndarray:
        return rng.standard_normal((rows, C), np.float32) * np.float32(scale)

    z = normal(G, first.clustering**0.5)[group] + normal(n, (1 - first.clustering) ** 0.5)
    shared = normal(n, 1.0), normal(G, 1.0)[group]
    scores = np.stack(
        [
            np.float32(w.signal) * z
            + np.float32(w.hardness) * shared[0]
            + np.float32(w.conclusion) * shared[1]
            + normal(n, w.method)
            + normal(G, w.interaction)[group]
            for w in worlds
        ]
    )
    return TestSet(group, z > first.label_cut.astype(np.float32), scores, worlds)
