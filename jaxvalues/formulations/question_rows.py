"""The token rows of question formulations, which have one question for each argument and category.

There are two layouts. With `branches`, a row is an argument, and the 20 questions branch from it. This needs a causal
network and a template in which the argument comes first. Otherwise a row is one pair of argument and category.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxvalues.data.arguments import STANCES, Argument
from jaxvalues.data.batches import QuestionIndex, Tokens
from jaxvalues.errors import ConfigError
from jaxvalues.formulations.rows import (
    FittedRows,
    Row,
    SafeTokenizer,
    as_arrays,
    check_readable,
    fitting_rows,
    pad_rows,
)
from jaxvalues.templates.questions import QuestionTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Pairs = tuple[np.ndarray, np.ndarray]  # (argument [R], category [R])


@dataclass(frozen=True)
class QuestionRows:
    """Encodes arguments and their questions as token rows.

    `start_ids` and `end_ids` are the special tokens at the ends of a row. `num_masks` mask tokens replace {mask}. With
    `branches`, questions branch from arguments. `reserved` is the number of tokens kept free after a row. `answers`
    [C, A, R] are the tokens of the answers, where each category has its own. Raises ConfigError for questions that
    leave no token for an argument.
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
        needed = self.longest + self.reserved
        if needed >= self.max_length:
            raise ConfigError(
                f"the template {self.template.name} and its descriptions take up to {needed} tokens, and "
                f"data.max_length {self.max_length} leaves none for an argument: raise it, or use shorter descriptions"
            )

    @property
    def longest(self) -> int:
        """The tokens of the longest row about an argument without any."""
        empty = [Argument("", "", stance, "") for stance in STANCES]
        return max(len(row) for category in range(self._count) for row in self._rows(empty, category, {}))

    def encode(
        self, arguments: Sequence[Argument], labels: np.ndarray | None = None, pairs: Pairs | None = None
    ) -> Tokens:
        """Tokenises the questions of `pairs`. None: all arguments and categories. `labels` are [n, C].

        A long argument is truncated as in `Classify.encode`. Raises UserError for an argument that a model cannot read.
        """
        check_readable(arguments)
        if self.branches:
            rows, long, fewer = self._fit(arguments, self._contexts, self.max_row_length)
            if pairs is None:
                index, categories = self._all_questions(len(arguments))
            else:
                index, categories = pairs[0], pairs[1][:, None]
            questions = QuestionIndex(index, categories, pad_rows(self._branch_rows), self.answers)
            ids = [rows[i] for i in index]
        else:
            index, category = self._all_pairs(len(arguments)) if pairs is None else pairs
            questions = QuestionIndex(index, category[:, None], None, self.answers)
            ids, long, fewer = self._question_rows(arguments, questions)
        row_labels = None if labels is None else labels[questions.argument[:, None], questions.categories]
        shown = {"fewer_examples": len(set(fewer)), "examples_left_out": len(fewer)}
        return Tokens(as_arrays(ids), row_labels, len(set(long)), questions=questions, **shown)

    def _all_questions(self, num_arguments: int) -> Pairs:
        """One row for each argument, with all categories: (argument [n], categories [n, C])."""
        return np.arange(num_arguments), np.broadcast_to(np.arange(self._count), (num_arguments, self._count))

    def _all_pairs(self, num_arguments: int) -> Pairs:
        """One row for each argument and category: (argument [n · C], category [n · C])."""
        return np.repeat(np.arange(num_arguments), self._count), np.tile(np.arange(self._count), num_arguments)

    def _question_rows(self, arguments: Sequence[Argument], questions: QuestionIndex) -> FittedRows:
        """The row of every question, and the indices of the arguments that are cut in any row."""
        ids: list[Row] = [[]] * len(questions.argument)
        known = self._tokenize(self.template.context(argument) for argument in arguments)
        truncated, fewer = [], []
        for category in range(self._count):
            at = np.flatnonzero(questions.categories[:, 0] == category)
            rows_of = self._rows_of(category, known)
            fitted = self._fit([arguments[i] for i in questions.argument[at]], rows_of, self.max_row_length)
            for i, row in zip(at, fitted.rows, strict=True):
                ids[i] = row
            truncated += questions.argument[at[fitted.long]].tolist()
            fewer += questions.argument[at[fitted.fewer]].tolist()
        return FittedRows(ids, truncated, fewer)

    def _fit(
        self, arguments: Sequence[Argument], rows_of: Callable[[Sequence[Argument]], list[Row]], max_length: int
    ) -> FittedRows:
        return fitting_rows(arguments, rows_of, max_length)

    def _rows_of(self, category: int, known: dict[str, Row]) -> Callable[[Sequence[Argument]], list[Row]]:
        return lambda some: self._rows(some, category, known)

    @property
    def rows_per_argument(self) -> int:
        """The number of rows of all questions about an argument: 1 where they branch from it, else C."""
        return 1 if self.branches else self._count

    @property
    def _count(self) -> int:
        """The number of questions about an argument, C."""
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
        **prompt: Any,
    ) -> QuestionRows:
        """The rows for a generative model, with answers of at most `tokens` tokens.

        A causal network processes all but the last token of an answer after the row, so these are reserved. Its
        questions branch where the template allows it, unless `branches` is False. T5's decoder processes the answers.
        `prompt` are the fields of a subclass.
        """
        return cls(
            tokenizer,
            template,
            max_length,
            start_ids=[],
            end_ids=[] if is_causal else [tokenizer.eos_token_id],
            branches=is_causal and branches and template.shares_context,
            reserved=tokens - 1 if is_causal else 0,
            answers=answers,
            **prompt,
        )

    @cached_property
    def _tokenize(self) -> SafeTokenizer:
        return SafeTokenizer(self.tokenizer)

    @property
    def max_row_length(self) -> int:
        """The maximum length of a row in tokens, without branches and reserved tokens."""
        return self.max_length - self.reserved - (max(map(len, self._branch_rows)) if self.branches else 0)

    @cached_property
    def _branch_rows(self) -> list[Row]:
        """The tokens of the questions that branch, with `end_ids`. They are the same for all arguments."""
        questions = [self.template.question(category, EMPTY_ARGUMENT) for category in range(self._count)]
        ids = self._tokenize(text for question in questions for text in question)
        return [[*self._joined(question, ids), *self.end_ids] for question in questions]

    def _contexts(self, arguments: Sequence[Argument]) -> list[Row]:
        """The tokens that all questions about an argument share, with `start_ids`."""
        texts = [self.template.context(argument) for argument in arguments]
        ids = self._tokenize(texts)
        return [[*self.start_ids, *ids[text]] for text in texts]

    def _rows(self, arguments: Sequence[Argument], category: int, known: dict[str, Row]) -> list[Row]:
        """The rows of one category. `known` are the ids of texts that are tokenised already."""
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
    """The base of question formulations: `question_rows` encodes their arguments."""

    question_rows: QuestionRows

    def encode(
        self, arguments: Sequence[Argument], labels: np.ndarray | None = None, pairs: Pairs | None = None
    ) -> Tokens:
        """See `QuestionRows.encode`."""
        return self.question_rows.encode(arguments, labels, pairs)


EMPTY_ARGUMENT = Argument("", "", STANCES[0], "")
