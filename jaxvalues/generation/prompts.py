"""Prompts as token ids: a text, the messages of a chat, or ids as they are; and prompts with answers behind them."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from jaxvalues.errors import UserError, short
from jaxvalues.templates.chat import Message, chat_text, count_bos, plain_ids, special_ends, text_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = list[int]
Prompt = str | Sequence[int] | Sequence[Message]
Answer = str | Sequence[int]


@dataclass(frozen=True)
class PromptReader:
    """Reads prompts with a tokenizer for a network with a vocabulary of `size` tokens.

    A text gets the special tokens that the tokenizer puts before a text, and for an encoder-decoder those behind it.
    Messages get the chat template's alone, ids none.
    """

    tokenizer: PreTrainedTokenizerBase
    size: int
    is_causal: bool = True

    def ids(self, prompt: Prompt) -> Row:
        """The ids of a prompt. Raises `UserError` for one that is empty or none, and for two BOS tokens."""
        if (given := as_ids(prompt)) is not None:
            ids = self._checked(given)
        else:
            ids = self._tokenized(*self._text(prompt))
        if count_bos(self.tokenizer, ids) > 1:
            raise UserError(
                f"it begins with two beginning-of-sequence tokens ({self.tokenizer.bos_token}), expected one: the "
                "tokenizer adds it to a text"
            )
        return ids

    def answer_ids(self, answer: Answer) -> Row:
        """The ids of an answer by itself, without special tokens. Raises `UserError` for one that is empty."""
        if isinstance(answer, str):
            ids = self._plain(answer)
        elif (given := as_ids(answer)) is None:
            raise UserError("it is a list of messages, expected a text or token ids")
        else:
            ids = self._checked(given)
        if not ids:
            raise UserError("it is empty, expected a text or token ids")
        return ids

    def joined(self, prompt: Prompt, answer: Answer) -> Row | None:
        """The ids of a prompt and an answer behind it, tokenised as one text; None unless both are texts."""
        if not isinstance(answer, str) or as_ids(prompt) is not None:
            return None
        text, is_plain = self._text(prompt)
        return self._tokenized(text + answer, is_plain)

    def _text(self, prompt: Prompt) -> tuple[str, bool]:
        """The text of a prompt, and whether it is plain: special tokens belong before it."""
        if isinstance(prompt, str):
            if not prompt:
                raise UserError("it is empty, expected a text, token ids or messages")
            return prompt, True
        return chat_text(self.tokenizer, prompt), False

    def _tokenized(self, text: str, is_plain: bool) -> Row:
        if not is_plain:
            return self._checked(text_ids(self.tokenizer, text))
        before, behind = self._special
        return [*before, *self._plain(text), *([] if self.is_causal else behind)]

    def _plain(self, text: str) -> Row:
        return self._checked(plain_ids(self.tokenizer, text)) if text else []

    def _checked(self, ids: Row) -> Row:
        if not ids:
            raise UserError("it holds no token, expected a text, token ids or messages")
        if wrong := [id for id in ids if not 0 <= id < self.size]:
            raise UserError(f"token {wrong[0]} is not one of the {self.size} of the model")
        return ids

    @cached_property
    def _special(self) -> tuple[Row, Row]:
        return special_ends(self.tokenizer)


def as_ids(prompt: object) -> Row | None:
    """A prompt of token ids as a list; None for a text or for messages. Raises `UserError` for anything else."""
    if isinstance(prompt, str):
        return None
    if isinstance(prompt, np.ndarray) and prompt.ndim == 1:
        prompt = prompt.tolist()
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes | bytearray | memoryview):
        raise UserError(f"it is {short(prompt)}, expected a text, a list of token ids, or a list of messages")
    if prompt and all(isinstance(one, Mapping) for one in prompt):
        return None
    if not all(isinstance(one, numbers.Integral) and not isinstance(one, bool) for one in prompt):
        raise UserError("it mixes kinds, expected a text, a list of token ids, or a list of messages")
    return [int(one) for one in prompt]


def split_answers(prompt: Row, joined: Sequence[Row]) -> tuple[Row, list[Row]]:
    """What all rows `joined` have in common with a prompt's own ids, and the rest of each row: [answers].

    It is the whole prompt, unless a token reaches over the border between prompt and answer. Raises `UserError` where
    nothing is in common.
    """
    columns = zip(prompt, *joined, strict=False)
    shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    if not shared:
        raise UserError(
            "its first token holds the beginning of the answer, so no token is left before the answer: give a longer "
            'prompt, or join="tokens"'
        )
    return shared, [row[len(shared) :] for row in joined]
