"""Token rows: safe tokenisation, truncation to a maximum length, and padding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxvalues.data.arguments import Argument
from jaxvalues.data.tokenizers import special_tokens
from jaxvalues.errors import UserError
from jaxvalues.templates.truncation import truncated_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = list[int]


@dataclass(frozen=True)
class SafeTokenizer:
    """A tokenizer that never converts text to a special token, even if it spells one (`</s>`, `[MASK]`)."""

    inner: PreTrainedTokenizerBase

    def __call__(self, texts: Iterable[str]) -> dict[str, Row]:
        """{text: ids} without special tokens. Equal texts are tokenised once."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:  # transformers raises an error for an empty list
            return {}
        options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
        ids = self.inner(distinct, add_special_tokens=False, split_special_tokens=True, **options)["input_ids"]
        return dict(zip(distinct, map(self._without_special, ids), strict=True))

    def ids(self, text: str) -> Row:
        """The ids of one text."""
        return self([text])[text]

    def line_start(self, text: str) -> Row:
        """The ids of one text at the start of a line. Some tokenizers write the same as behind a space where nothing is
        before it."""
        newline, both = self.ids("\n"), self.ids(f"\n{text}")
        return both[len(newline) :] if both[: len(newline)] == newline else self.ids(text)

    def _without_special(self, ids: Row) -> Row:
        """The ids with special tokens replaced by the unknown token, or removed if there is none.

        Unigram vocabularies contain the special tokens as pieces, so text can spell them.
        """
        if self._special.isdisjoint(ids):
            return ids
        unknown = [] if self.inner.unk_token_id is None else [self.inner.unk_token_id]
        return [kept for id in ids for kept in (unknown if id in self._special else [id])]

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(special_tokens(self.inner).values()) - {self.inner.unk_token_id}


def check_readable(arguments: Iterable[Argument]) -> None:
    """Raises UserError for an argument that a model cannot read."""
    for argument in arguments:
        for problem in argument.problems():
            raise UserError(problem)


class FittedRows(NamedTuple):
    """Rows of at most some length, the indices of arguments that are truncated, and of those with fewer examples: once
    for each example that is left out."""

    rows: list[Row]
    long: list[int]
    fewer: list[int]


def fitting_rows(
    arguments: Sequence[Argument], rows_of: Callable[[Sequence[Argument]], list[Row]], max_length: int
) -> FittedRows:
    """The rows of arguments, truncated to `max_length` tokens.

    `rows_of` returns the rows of whole arguments. A row that is too long even without any word of the argument is
    returned as it is.
    """
    rows = rows_of(arguments)
    long = [i for i, row in enumerate(rows) if len(row) > max_length]
    shorter = truncated_rows([arguments[i] for i in long], rows_of, max_length)
    for i, row in zip(long, shorter, strict=True):
        rows[i] = row
    return FittedRows(rows, long, [])


def pad_rows(rows: Sequence[Row]) -> np.ndarray:
    """Rows of different lengths as one array [n, S], padded on the right with -1."""
    table = np.full((len(rows), max(map(len, rows), default=0)), -1, np.int32)
    for row, ids in zip(table, rows, strict=True):
        row[: len(ids)] = ids
    return table


def as_arrays(rows: Iterable[Row]) -> tuple[np.ndarray, ...]:
    """Rows as int32 arrays of their own lengths."""
    return tuple(np.array(row, np.int32) for row in rows)
