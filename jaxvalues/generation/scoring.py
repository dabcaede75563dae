"""Prompts with answers to be scored, as arrays for `formulations.lm_scoring`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxvalues.errors import UserError, about, counted, short
from jaxvalues.generation.prompts import Answer, Prompt, PromptReader, Row, split_answers
from jaxvalues.generation.shapes import batches, power_of_two, token_bucket

Join = Literal["together", "tokens"]
ANSWERS = 32
"""The largest number of answers that branch from one row."""
LOGITS_BYTES = 2**28
"""How large the logits of a batch may be."""


class Scored(NamedTuple):
    """A prompt's tokens, and the A answers that are scored behind them."""

    prompt: Row
    answers: list[Row]


class ScoredBatch(NamedTuple):
    """Rows of prompts, each with up to W answers: `ids` and `mask` [B, 1, W, R].

    `prompts` and `first` say which prompt and which answer each of the first rows begins with; the other rows fill the
    batch.
    """

    rows: list[Row]
    shape: tuple[int, int]
    ids: np.ndarray
    mask: np.ndarray
    prompts: list[int]
    first: list[int]


def read_answers(reader: PromptReader, prompt: Prompt, answers: Sequence[Answer], join: Join) -> Scored:
    """A prompt and its answers as tokens. Raises `UserError` for one that is empty."""
    ids = reader.ids(prompt)
    alone = []
    for number, answer in enumerate(answers):
        with about(f"answers[{number}]"):
            alone.append(reader.answer_ids(answer))
    if not reader.is_causal:
        return Scored(ids, alone)
    joined = [
        (reader.joined(prompt, answer) if join == "together" else None) or [*ids, *own]
        for answer, own in zip(answers, alone, strict=True)
    ]
    return Scored(*split_answers(ids, joined))


def answers_of_each(answers: Sequence[Answer] | Sequence[Sequence[Answer]], prompts: int) -> list[list[Answer]]:
    """The answers to each of a number of prompts. Raises `UserError` unless all have equally many, at least one."""
    if isinstance(answers, str) or not isinstance(answers, Sequence) or not len(answers):
        raise UserError(f"answers is {short(answers)}, expected a list of at least one answer")
    lists = [_is_list_of_answers(one) for one in answers]
    if not any(lists):
        return [list(answers)] * prompts
    if not all(lists):
        raise UserError(
            f"answers[{lists.index(False)}] is {short(answers[lists.index(False)])}, expected a list of answers, as "
            f"answers[{lists.index(True)}] is"
        )
    sizes = {len(one) for one in answers}
    if len(answers) != prompts or len(sizes) > 1:
        raise UserError(
            f"answers holds {counted(len(answers), 'list')} of {' or '.join(map(str, sorted(sizes)))} answers for "
            f"{counted(prompts, 'prompt')}, expected one list for each prompt, all equally long"
        )
    return [list(one) for one in answers]


def plan(scored: Sequence[Scored], size: int, vocabulary: int, pad: int) -> Iterator[ScoredBatch]:
    """The batches, of at most `size` rows, in which all answers are scored; `vocabulary` is the number of logits."""
    width = min(max((len(one.answers) for one in scored), default=0), ANSWERS)
    parts = [(p, first) for p, one in enumerate(scored) for first in range(0, len(one.answers), width)]
    shapes = [
        (token_bucket(len(scored[p].prompt)), power_of_two(max(map(len, scored[p].answers[first : first + width]))))
        for p, first in parts
    ]

    def at_once(shape: tuple[int, int]) -> int:
        each = 4 * vocabulary * (1 + width * (shape[1] - 1))
        return min(max(LOGITS_BYTES // each, 1), size)

    for (length, tokens), members in batches(shapes, at_once):
        chosen = [parts[i] for i in members]
        rows = min(power_of_two(len(chosen)), at_once((length, tokens)))
        ids, mask = np.full((rows, 1, width, tokens), pad, np.int32), np.zeros((rows, 1, width, tokens), np.int32)
        for row, (p, first) in enumerate(chosen):
            for column, answer in enumerate(scored[p].answers[first : first + width]):
                ids[row, 0, column, : len(answer)] = answer
                mask[row, 0, column, : len(answer)] = 1
        prompts, first = ([part[i] for part in chosen] for i in (0, 1))
        yield ScoredBatch([scored[p].prompt for p in prompts], (rows, length), ids, mask, prompts, first)


def _is_list_of_answers(one: object) -> bool:
    """Whether it is a list of answers, rather than an answer that is a text or token ids."""
    return isinstance(one, Sequence) and not isinstance(one, str) and any(not _is_number(item) for item in one)


def _is_number(item: object) -> bool:
    return not isinstance(item, str | Sequence | np.ndarray)
