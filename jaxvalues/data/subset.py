"""Random subsets for training: arguments per category, a fraction of all arguments, and (argument, category) pairs.

Every subset is a pure function of the split and the seed. Arguments are drawn once per run, pairs once per epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxvalues.data.arguments import Split
from jaxvalues.data.task import VALUES, Task
from jaxvalues.errors import ConfigError


def few_shot(split: Split, shots: int, seed: int = 0, task: Task = VALUES) -> Split:
    """A few-shot subset: at least `shots` positive arguments of each class of the task, in the split's order.

    Arguments are drawn for one class after another, from the rarest to the most frequent. An argument counts for all
    classes that it has. A class with fewer positives contributes all of them (see `scarce_classes`). Raises ConfigError
    for a split without any positive.
    """
    random = np.random.default_rng(seed)
    positive = task.class_membership(split.labels)  # [n, C]
    drawn = np.zeros(len(split), bool)
    for category in np.argsort(positive.sum(0), kind="stable"):
        there = positive[:, category]
        missing = shots - np.count_nonzero(there & drawn)
        left = np.flatnonzero(there & ~drawn)
        if missing > 0:
            drawn[random.choice(left, min(missing, len(left)), replace=False)] = True
    if not drawn.any():
        raise ConfigError(f"data.shots: no argument of {split.name} has any category, expected at least one")
    return split.subset(np.flatnonzero(drawn))


def scarce_classes(split: Split, shots: int, task: Task = VALUES) -> dict[str, int]:
    """{class: number of positives} of the classes that have fewer than `shots`, in the task's order."""
    counts = zip(task.classes, task.class_membership(split.labels).sum(0).tolist(), strict=True)
    return {category: count for category, count in counts if count < shots}


def take_fraction(split: Split, fraction: float, seed: int = 0) -> Split:
    """round(`fraction` · n) random arguments, in the split's order.

    With the same seed, a smaller fraction is a subset of a larger one. Raises ConfigError when the number is 0.
    """
    count = round(fraction * len(split))
    if count == 0:
        raise ConfigError(
            f"data.fraction: {fraction} of the {len(split)} arguments of {split.name} is none, expected at least one"
        )
    return split.subset(np.sort(np.random.default_rng(seed).permutation(len(split))[:count]))


def sample_pairs(
    labels: np.ndarray, negatives: float | None, seed: int | Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The (argument, category) pairs that become questions: two arrays [R], rows and columns of `labels` [n, C].

    With `negatives` None these are all n · C pairs. Otherwise they are all P positive pairs and round(`negatives` · P)
    negative ones, or all negatives if there are fewer. The negatives are drawn without replacement from the whole
    split, so an argument may have none. The pairs are sorted by argument.
    """
    if negatives is None:
        selected = np.ones(labels.shape, bool)
    else:
        selected = labels == 1
        count = count_pairs(labels, negatives) - np.count_nonzero(selected)
        others = np.flatnonzero(~selected)
        selected.flat[np.random.default_rng(seed).choice(others, count, replace=False)] = True
    return np.nonzero(selected)


def count_pairs(labels: np.ndarray, negatives: float | None) -> int:
    """The number of pairs R that `sample_pairs` draws from labels [n, C]; it does not depend on the seed."""
    positives = np.count_nonzero(labels == 1)
    return labels.size if negatives is None else min(positives + round(negatives * positives), labels.size)
