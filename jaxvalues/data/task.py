"""What a system is to say about an argument: the task of the data set, or the study's side task.

A task names the C columns of every logit, probability, decision and score, and says what an argument's labels are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument, Split
from jaxvalues.data.taxonomy import CATEGORIES


@dataclass(frozen=True)
class Task:
    """A task whose labels are the columns `labels` [C]."""

    name: str
    """As in `data.task`."""
    labels: tuple[str, ...]
    label: str
    """What a message calls one of them."""
    opposite: str | None = None
    """With one label: what it is when it is not there, which few shots are drawn of too."""
    asked_slot: str | None = None
    """The slot of templates that would give the answer away."""
    read: Callable[[Sequence[Argument]], np.ndarray] | None = None
    """Labels [n, C] of arguments, where they are not those that the data set comes with."""

    def labelled(self, split: Split) -> Split:
        """The split as the data set comes, with the labels of this task instead of those of its values."""
        return split if self.read is None else Split(split.name, split.arguments, self.read(split.arguments))

    @property
    def has_categories(self) -> bool:
        """Whether its labels are the value categories, which have descriptions, groups and an official score."""
        return self.labels == CATEGORIES

    @property
    def classes(self) -> tuple[str, ...]:
        """What few shots are drawn of."""
        return self.labels if self.opposite is None else (*self.labels, self.opposite)

    def members(self, labels: np.ndarray) -> np.ndarray:
        """Which of the `classes` arguments belong to: labels [n, C] of 0 and 1 to [n, classes] bool."""
        positive = labels == 1
        return positive if self.opposite is None else np.concatenate([positive, ~positive], axis=1)


def _in_favor(arguments: Sequence[Argument]) -> np.ndarray:
    return np.array([[argument.stance == IN_FAVOR] for argument in arguments], np.int8).reshape(-1, 1)


VALUES = Task("values", CATEGORIES, "category")
"""Which of the 20 value categories an argument draws on (Touché23-ValueEval)."""
STANCE = Task("stance", (IN_FAVOR,), "stance", opposite=AGAINST, asked_slot="stance", read=_in_favor)
"""Whether the premise is in favor of the conclusion: the natural language inference of the study (arXiv 2403.09720)."""
TASKS = {task.name: task for task in (VALUES, STANCE)}
