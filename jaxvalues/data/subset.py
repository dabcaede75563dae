"""Fewer arguments to train on: so many of each category, or a share of all; and pairs instead of all 20 questions.

What is drawn is a pure function of the split and the seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxvalues.data.arguments import Split
from jaxvalues.data.task import VALUES, Task
from jaxvalues.errors import ConfigError


def few_shot(split: Split, shots: int, seed: int = 0, task: Task = VALUES) -> Split:
    """At least `shots` positive arguments of each category (of a stance: of both), and no others, in the split's order.

    Categories come from the rarest to the most frequent, and an argument drawn for one counts for all it has, so the
    rare ones, which others cannot fill up, decide first. A category with fewer positives gives all of them (`scarce`).
    Raises ConfigError for a split without any positive.
    """
    random = np.random.default_rng(seed)
    positive = task.members(split.labels)  # [n, C]
    drawn = np.zeros(len(split), bool)
    for category in np.argsort(positive.sum(0), kind="stable"):
        there = positive[:, category]
        missing = shots - np.count_nonzero(there & drawn)
        left = np.flatnonzero(there & ~drawn)
        if missing > 0:
            drawn[random.choice(left, min(missing, len(left)), replace=False)] = True
    if not drawn.any():
        raise ConfigError(f"data.shots: no argument of {split.name} has any category, so there is nothing to draw")
    return split.subset(np.flatnonzero(drawn))


def scarce(split: Split, shots: int, task: Task = VALUES) -> dict[str, int]:
    """The categories with fewer than `shots` positives, in official order, and how many they have."""
    counts = zip(task.classes, task.members(split.labels).sum(0).tolist(), strict=True)
    return {category: count for category, count in counts if count < shots}


def take_fraction(split: Split, fraction: float, seed: int = 0) -> Split:
    """round(`fraction` · n) arguments, in the split's order. With one seed, a smaller share is part of a larger one.

    Raises ConfigError when that is none.
    """
    count = round(fraction * len(split))
    if count == 0:
        raise ConfigError(f"data.fraction: {fraction} of the {len(split)} arguments of {split.name} is none")
    return split.subset(np.sort(np.random.default_rng(seed).permutation(len(split))[:count]))


def sample_pairs(
    labels: np.ndarray, negatives: float | None, seed: int | Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs (argument, category) to ask about: two arrays [R] of rows and columns of `labels` [n, C], row by row.

    All n · C of them when `negatives` is None. Else all P positive ones and round(`negatives` · P) different negative
    ones, drawn over the whole split, or all there are: arguments and categories have negatives in proportion to how
    often they are negative, and an argument may have none.
    """
    if negatives is None:
        asked = np.ones(labels.shape, bool)
    else:
        asked = labels == 1
        others = np.flatnonzero(~asked)
        count = min(round(negatives * np.count_nonzero(asked)), len(others))
        asked.flat[np.random.default_rng(seed).choice(others, count, replace=False)] = True
    return np.nonzero(asked)
