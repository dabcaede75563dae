"""Shared beginnings of prompts, such as the same examples: their keys and values are computed once for all rows.

The keys and values in every layer stand before those of the rows, as a prefix does. So every prompt has the same
positions and sees the same tokens as before: the answers are the same, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from jaxvalues.data.batches import Tokens

SHORTEST = 64
"""The fewest tokens that are worth a program of their own."""
MULTIPLE = 32
"""Beginnings are multiples of so many tokens, so that runs with other examples may share programs."""


class Beginning(NamedTuple):
    """The tokens [P] with which many prompts begin, and the rows that do."""

    ids: np.ndarray
    rows: np.ndarray


def shared_beginning(ids: Sequence[np.ndarray]) -> Beginning | None:
    """The beginning that saves most tokens: its length times the rows that need not read it. None: none has SHORTEST
    tokens. Every row keeps a token of its own behind it.
    """
    order = sorted(range(len(ids)), key=lambda row: ids[row].tolist())
    alike = [_common(ids[a], ids[b]) for a, b in pairwise(order)]
    best, where = 0, None
    heights: list[tuple[int, int]] = []  # (length, first place), rising: the largest rectangle under the bars `alike`
    for place, length in enumerate([*alike, 0]):
        first = place
        while heights and heights[-1][0] > length:
            height, first = heights.pop()
            usable = height - height % MULTIPLE
            if usable >= SHORTEST and usable * (place - first) > best:
                best, where = usable * (place - first), (usable, first, place)
        if length and (not heights or heights[-1][0] < length):
            heights.append((length, first))
    if where is None:
        return None
    length, first, last = where
    return Beginning(ids[order[first]][:length], np.sort(order[first : last + 1]))


def behind(tokens: Tokens, beginning: Beginning) -> Tokens:
    """The rows with this beginning, without it."""
    length = len(beginning.ids)
    return replace(rows_of(tokens, beginning.rows, length), beginning=beginning.ids)


def others(tokens: Tokens, beginning: Beginning) -> tuple[np.ndarray, Tokens]:
    """The rows without this beginning: which, and their tokens."""
    rows = np.setdiff1d(np.arange(len(tokens)), beginning.rows)
    return rows, rows_of(tokens, rows)


def rows_of(tokens: Tokens, rows: np.ndarray, skip: int = 0) -> Tokens:
    """Some rows, without their first `skip` tokens and their labels."""
    questions = tokens.questions
    if questions is not None:
        questions = replace(questions, argument=questions.argument[rows], categories=questions.categories[rows])
    return replace(tokens, ids=tuple(tokens.ids[row][skip:] for row in rows), labels=None, questions=questions)


def lengths_behind(lengths: Sequence[int], beginning: int) -> tuple[int, ...]:
    """The padded lengths of rows behind a beginning of so many tokens: what is left of `lengths`, by 16 tokens."""
    left = (length - beginning for length in lengths)
    return tuple(sorted({-(-length // 16) * 16 for length in left if length > 0}))


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens two rows share at their beginning; at most all but the last of the shorter."""
    size = min(len(one), len(other)) - 1
    differ = np.flatnonzero(one[:size] != other[:size])
    return int(differ[0]) if len(differ) else max(size, 0)
