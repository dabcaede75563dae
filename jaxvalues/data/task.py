"""The tasks: which labels a system predicts for an argument.

A task defines the C columns of all labels, logits, probabilities and decisions, and the labels of an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument, Split
from jaxvalues.data.taxonomy import CATEGORIES


@dataclass(frozen=True)
class Task:
    """A prediction task with C labels."""

    name: str
    """The value of `data.task`."""
    labels: tuple[str, ...]
    """The names of the C columns."""
    label: str
    """The word for one label in messages."""
    opposite: str | None = None
    """The class of arguments without the label, for a task with one label."""
    answer_slot: str | None = None
    """The template slot that contains the answer. Templates for this task must not use it."""
    label_arguments: Callable[[Sequence[Argument]], np.ndarray] | None = None
    """Computes labels [n, C] from arguments. None: the labels are those of the data set."""

    def relabel(self, split: Split) -> Split:
        """The split with the labels of this task."""
        if self.label_arguments is None:
            return split
        return Split(split.name, split.arguments, self.label_arguments(split.arguments))

    @property
    def has_categories(self) -> bool:
        """Whether the labels are the value categories. Only these have descriptions, groups and an official score."""
        return self.labels == CATEGORIES

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes from which few-shot subsets are drawn: the labels, and `opposite` if there is one."""
        return self.labels if self.opposite is None else (*self.labels, self.opposite)

    def class_membership(self, labels: np.ndarray) -> np.ndarray:
        """Whether each argument belongs to each of `classes`: labels [n, C] of 0 and 1 to [n, classes] bool."""
        positive = labels == 1
        return positive if self.opposite is None else np.concatenate([positive, ~positive], axis=1)


def _in_favor(arguments: Sequence[Argument]) -> np.ndarray:
    return np.array([[argument.stance == IN_FAVOR] for argument in arguments], np.int8).reshape(-1, 1)


VALUES = Task("values", CATEGORIES, "category")
"""Which of the 20 value categories an argument draws on (Touché23-ValueEval)."""
STANCE = Task("stance", (IN_FAVOR,), "stance", opposite=AGAINST, answer_slot="stance", label_arguments=_in_favor)
"""Whether the premise is in favor of the conclusion: the study's natural language inference task (arXiv 2403.09720)."""
TASKS = {task.name: task for task in (VALUES, STANCE)}
