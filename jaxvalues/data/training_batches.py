"""The stream of training batches: what one update is made of, and how many updates an epoch has.

An update is on `batch_size` arguments. Question formulations ask all questions about them, or those that `negatives`
draws, whether the questions branch from one row or each is a row of its own. With `questions_per_step`, an update is on
that many questions, drawn from all arguments. So an epoch has the same number of updates on every network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from jaxvalues.config import Config
from jaxvalues.data.batches import Batch, PlannedBatch, Tokens, collate, epoch_plan
from jaxvalues.data.subset import count_pairs, sample_pairs
from jaxvalues.errors import counted

NEGATIVES = 1  # follows (seed, epoch) where negatives are drawn, so that they do not share the numbers of the order


class EpochSize(NamedTuple):
    """The arguments, questions (None: none are asked) and steps (updates) of one epoch.

    `per_step` is the number of arguments of a step, or of questions where `by_question` is true.
    """

    arguments: int
    questions: int | None
    steps: int
    per_step: int
    by_question: bool

    @classmethod
    def of(
        cls, arguments: int, questions: int | None, batch_size: int, questions_per_step: int | None = None
    ) -> EpochSize:
        """The size of an epoch of steps on `batch_size` arguments, or on `questions_per_step` questions."""
        by_question = questions is not None and questions_per_step is not None
        units, each = (questions, questions_per_step) if by_question else (arguments, batch_size)
        return cls(arguments, questions, -(-units // each), each, by_question)

    def __str__(self) -> str:
        """What a step is on, such as `8 arguments with 160 questions`."""
        if self.questions is None:
            return counted(self.per_step, "argument")
        if self.by_question:
            arguments = _mean(self.arguments_per_step)
            return f"{counted(self.per_step, 'question')}, as many as {arguments} arguments have on average"
        questions = self.per_step * self.questions / self.arguments
        average = "" if questions.is_integer() else " on average"
        return f"{counted(self.per_step, 'argument')} with {_mean(questions)} questions{average}"

    @property
    def arguments_per_step(self) -> float:
        """The mean number of arguments of a step. By questions: as many as have that many questions."""
        return self.arguments / self.steps


def _mean(number: float) -> str:
    return f"{number:,.0f}" if number.is_integer() else f"{number:,.1f}" if number >= 1 else f"{number:.2g}"


@dataclass(frozen=True)
class TrainingBatches:
    """The endless stream of training batches. Batch number `step` depends only on (seed, step).

    `tokens` have all questions about every argument, in the order of arguments and categories. `negatives` draws the
    questions of each epoch anew (see `sample_pairs`). `epochs` is the length of the run; the number of rows of a batch
    is that of its largest batch. The set of shapes of epoch 0 is that of all epochs.
    """

    tokens: Tokens
    buckets: tuple[int, ...]
    batch_size: int
    seed: int
    pad_id: int
    questions_per_step: int | None = None
    negatives: float | None = None
    accumulation: int = 1
    epochs: int = 1

    @classmethod
    def for_config(cls, config: Config, tokens: Tokens, pad_id: int) -> TrainingBatches:
        """The training batches of a config."""
        training = config.training
        return cls(
            tokens,
            config.lengths,
            training.batch_size,
            config.seed,
            pad_id,
            questions_per_step=training.questions_per_step,
            negatives=config.data.negatives,
            accumulation=training.accumulation,
            epochs=training.epochs,
        )

    @property
    def by_question(self) -> bool:
        """Whether a step is on `questions_per_step` questions."""
        return self.size.by_question

    @cached_property
    def size(self) -> EpochSize:
        """How much an epoch contains."""
        arguments, labels = self.tokens.num_arguments, self.tokens.labels
        if self.tokens.questions is None:
            questions = None
        else:
            questions = self._cells if self.negatives is None else count_pairs(labels, self.negatives)
        return EpochSize.of(arguments, questions, self.batch_size, self.questions_per_step)

    @property
    def steps_per_epoch(self) -> int:
        return self.size.steps

    @cached_property
    def rows(self) -> int:
        """The number of rows of every batch, padding included.

        With `negatives` and a row for each question, it is that of the largest batch of the run, rounded up so that
        `batch_size` and `accumulation` divide it.
        """
        if self.by_question:
            return self.questions_per_step
        if self.negatives is None or self.rows_per_argument == 1:
            return self.batch_size * self.rows_per_argument
        most = max(len(planned.rows) for epoch in range(self.epochs) for planned in self._epoch(epoch))
        unit = math.lcm(self.batch_size, self.accumulation)
        return unit * max(1, -(-most // unit))

    def lengths(self) -> list[int]:
        """The bucket lengths that occur, sorted. No epoch has others."""
        return list(self._lengths)

    def planned_lengths(self) -> Iterator[int]:
        """The length of every batch of the run, in order."""
        return (planned.length for epoch in range(self.epochs) for planned in self._epoch(epoch))

    def starting_at(self, step: int) -> Iterator[Batch]:
        """The batches from number `step` on. A resumed run so gets the same batches as an uninterrupted one."""
        epoch, within = divmod(step, self.steps_per_epoch)
        while True:
            for planned in self._epoch(epoch)[within:]:
                yield collate(self.tokens, planned, self.rows, self.pad_id)
            epoch, within = epoch + 1, 0

    def one_of_each_length(self) -> list[Batch]:
        """A batch of every shape that an epoch has, in the order in which epoch 0 meets them."""
        first: dict[int, PlannedBatch] = {}
        for planned in self._epoch(0):
            first.setdefault(planned.length, planned)
        return [collate(self.tokens, planned, self.rows, self.pad_id) for planned in first.values()]

    @property
    def _cells(self) -> int:
        """The number of all questions: rows × questions of a row."""
        return self.tokens.questions.categories.size

    @property
    def rows_per_argument(self) -> int:
        """1, or the number of questions about an argument where each is a row of its own."""
        return len(self.tokens) // self.tokens.num_arguments

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        """The bucket lengths of epoch 0. Rows that a later epoch draws are padded to one of them."""
        return tuple(sorted({planned.length for planned in self._planned(0, self.buckets)}))

    def _epoch(self, epoch: int) -> list[PlannedBatch]:
        return self._planned(epoch, self._lengths)

    def _planned(self, epoch: int, buckets: tuple[int, ...]) -> list[PlannedBatch]:
        return self._by_question(epoch, buckets) if self.by_question else self._by_argument(epoch, buckets)

    def _by_argument(self, epoch: int, buckets: tuple[int, ...]) -> list[PlannedBatch]:
        """`batch_size` arguments a batch. Rows of one argument are padded alike, to the longest of them."""
        each, drawn = self.rows_per_argument, self._drawn(epoch)
        lengths = self.tokens.lengths.reshape(-1, each).max(axis=1)
        plan = epoch_plan(lengths, buckets, self.batch_size, seed=self.seed, epoch=epoch)
        if each == 1 and drawn is None:
            return plan
        if each == 1:
            return [replace(one, asked=drawn[one.rows]) for one in plan]
        rows = np.arange(len(self.tokens)).reshape(-1, each)
        asked = np.ones(rows.shape, bool) if drawn is None else drawn
        return [PlannedBatch(one.length, rows[one.rows][asked[one.rows]]) for one in plan]

    def _by_question(self, epoch: int, buckets: tuple[int, ...]) -> list[PlannedBatch]:
        """`questions_per_step` questions a batch, each in a row of its own."""
        drawn, each = self._drawn(epoch), self.tokens.questions.categories.shape[1]
        cells = np.arange(self._cells) if drawn is None else np.flatnonzero(drawn)
        row, column = np.divmod(cells, each)
        lengths = self.tokens.lengths
        longest = next(length for length in self.buckets if length >= lengths.max())
        plan = epoch_plan(lengths[row], buckets, self.questions_per_step, seed=self.seed, epoch=epoch, longest=longest)
        return [PlannedBatch(one.length, row[one.rows], column[one.rows]) for one in plan]

    def _drawn(self, epoch: int) -> np.ndarray | None:
        """The questions of an epoch, [n, C] bool. None: all of them."""
        if self.negatives is None:
            return None
        labels = self.tokens.labels.reshape(self.tokens.num_arguments, -1)
        drawn = np.zeros(labels.shape, bool)
        drawn[sample_pairs(labels, self.negatives, (self.seed, epoch, NEGATIVES))] = True
        return drawn
