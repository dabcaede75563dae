"""What the kinds that ask have in common: one question about an argument for each category, as token rows.

Two layouts. Where a template shows the argument first, a causal network reads it once, and 20 questions branch from it:
a row is an argument. Otherwise a row is one pair of argument and category.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from jaxvalues.data.arguments import STANCES, Argument
from jaxvalues.data.batches import QuestionIndex, Tokens
from jaxvalues.errors import ConfigError
from jaxvalues.formulations.rows import Row, SafeTokenizer, as_arrays, check_readable, fitting_rows, pad_rows
from jaxvalues.templates.questions import QuestionTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Pairs = tuple[np.ndarray, np.ndarray]  # (argument [R], category [R])


@dataclass(frozen=True)
class QuestionRows:
    """Arguments and questions as tokens.

    `before` and `after` are the ids that frame a row; `masks` is how many mask tokens stand in the place of {mask};
    `branches`: questions branch from arguments; `reserved` tokens are kept free behind a row; `answers` [C, A, R] are
    the words asked for, where each category has its own. Raises ConfigError for questions that leave no room.
    """

    tokenizer: PreTrainedTokenizerBase
    template: QuestionTemplate
    max_length: int
    start_ids: Row
    end_ids: Row
    num_masks: int = 1
    branches: bool = False
    reserved: int = 0
    answers: np.ndarray | None = None

    def __post_init__(self) -> None:
        empty = [Argument("", "", stance, "") for stance in STANCES]
        needed = max(len(row) for category in range(self._count) for row in self._rows(empty, category, {}))
        needed += self.reserved
        if needed >= self.max_length:
            raise ConfigError(
                f"the template {self.template.name} and its descriptions take up to {needed} tokens, and "
                f"data.max_length {self.max_length} leaves none for an argument: raise it, or describe more briefly"
            )

    def encode(
        self, arguments: Sequence[Argument], labels: np.ndarray | None = None, pairs: Pairs | None = None
    ) -> Tokens:
        """Tokenise the questions of `pairs`, or of all arguments and categories; `labels` [n, C].

        Where a row is too long, the argument is truncated as `Classify.encode` does it.
        Raises UserError for an argument that cannot be read.
        """
        check_readable(arguments)
        if self.branches:
            rows, long = fitting_rows(arguments, self._contexts, self._longest_row)
            asked = self._all_at_once(len(arguments)) if pairs is None else QuestionIndex(pairs[0], pairs[1][:, None])
            asked = QuestionIndex(asked.argument, asked.categories, pad_rows(self._branch_rows), self.answers)
            ids = [rows[i] for i in asked.argument]
        else:
            asked = self._one_by_one(len(arguments), pairs)
            ids, long = self._fitting(arguments, asked)
        asked_labels = None if labels is None else labels[asked.argument[:, None], asked.categories]
        return Tokens(as_arrays(ids), asked_labels, len(set(long)), questions=asked)

    def _all_at_once(self, count: int) -> QuestionIndex:
        everything = np.broadcast_to(np.arange(self._count), (count, self._count))
        return QuestionIndex(np.arange(count), everything)

    def _one_by_one(self, count: int, pairs: Pairs | None) -> QuestionIndex:
        if pairs is None:
            pairs = np.repeat(np.arange(count), self._count), np.tile(np.arange(self._count), count)
        return QuestionIndex(pairs[0], pairs[1][:, None], None, self.answers)

    def _fitting(self, arguments: Sequence[Argument], asked: QuestionIndex) -> tuple[list[Row], list[int]]:
        """The row of every question asked, and the arguments that had to be truncated for any."""
        ids: list[Row] = [[]] * len(asked.argument)
        known = self._tokenize(self.template.context(argument) for argument in arguments)
        truncated = []
        for category in range(self._count):
            at = np.flatnonzero(asked.categories[:, 0] == category)
            rows_of = self._rows_of(category, known)
            rows, long = fitting_rows([arguments[i] for i in asked.argument[at]], rows_of, self._longest_row)
            for i, row in zip(at, rows, strict=True):
                ids[i] = row
            truncated += asked.argument[at[long]].tolist()
        return ids, truncated

    def _rows_of(self, category: int, known: dict[str, Row]) -> Callable[[Sequence[Argument]], list[Row]]:
        return lambda some: self._rows(some, category, known)

    @property
    def _count(self) -> int:
        """How many questions there are about an argument."""
        return len(self.template.labels)

    @classmethod
    def for_language_model(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        template: QuestionTemplate,
        max_length: int,
        *,
        is_causal: bool,
        tokens: int,
        branches: bool = True,
        answers: np.ndarray | None = None,
    ) -> QuestionRows:
        """Rows that a language model continues, with answers of at most so many `tokens`: a causal network reads all
        but the last of them behind a row, and its questions branch where they may; T5's decoder reads them."""
        return cls(
            tokenizer,
            template,
            max_length,
            start_ids=[],
            end_ids=[] if is_causal else [tokenizer.eos_token_id],
            branches=is_causal and branches and template.shares_context,
            reserved=tokens - 1 if is_causal else 0,
            answers=answers,
        )

    @cached_property
    def _tokenize(self) -> SafeTokenizer:
        return SafeTokenizer(self.tokenizer)

    @property
    def _longest_row(self) -> int:
        """The longest row."""
        return self.max_length - self.reserved - (max(map(len, self._branch_rows)) if self.branches else 0)

    @cached_property
    def _branch_rows(self) -> list[Row]:
        """The questions, each the end of its row."""
        questions = [self.template.question(category, _NOBODY) for category in range(self._count)]
        ids = self._tokenize(text for question in questions for text in question)
        return [[*self._joined(question, ids), *self.end_ids] for question in questions]

    def _contexts(self, arguments: Sequence[Argument]) -> list[Row]:
        """The beginnings of rows, which all questions share."""
        texts = [self.template.context(argument) for argument in arguments]
        ids = self._tokenize(texts)
        return [[*self.start_ids, *ids[text]] for text in texts]

    def _rows(self, arguments: Sequence[Argument], category: int, known: dict[str, Row]) -> list[Row]:
        """Whole rows; `known` are ids of texts that need not be tokenised again."""
        texts = [(self.template.context(a), self.template.question(category, a)) for a in arguments]
        new = (text for context, question in texts for text in (context, *question) if text not in known)
        ids = known | self._tokenize(new)
        return [
            [*self.start_ids, *ids[context], *self._joined(question, ids), *self.end_ids] for context, question in texts
        ]

    def _joined(self, question: tuple[str, ...], ids: dict[str, Row]) -> Row:
        """The ids of a question's texts, with mask tokens between them."""
        first, *rest = question
        row = list(ids[first])
        for text in rest:
            row += [self.tokenizer.mask_token_id] * self.num_masks + ids[text]
        return row


@dataclass(frozen=True)
class QuestionFormulation:
    """What is common to the kinds that ask: their rows are those of `asking`."""

    question_rows: QuestionRows

    def encode(
        self, arguments: Sequence[Argument], labels: np.ndarray | None = None, pairs: Pairs | None = None
    ) -> Tokens:
        """See `QuestionRows.encode`."""
        return self.question_rows.encode(arguments, labels, pairs)


_NOBODY = Argument("", "", STANCES[0], "")  # questions that branch are the same for every argument
