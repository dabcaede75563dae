"""Where generated text ends: stop strings, and the tokens that end a sequence.

A stop string is looked for in the text, not among tokens, so it may begin and end inside of tokens. The tokenizer
itself says what the text of tokens is, so this is exact for every tokenizer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxvalues.errors import UserError, short
from jaxvalues.templates.chat import has_chat_template, turn_ends

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EVERY = 16
"""The number of tokens between two looks for stop strings. A row computes fewer than these in vain, and no more."""


class Ended(NamedTuple):
    """The tokens of a row up to the end, and their text, which ends before a stop string and without an end token."""

    ids: list[int]
    text: str
    by_stop: bool


def find_end(
    ids: Sequence[int], text_of: Callable[[Sequence[int]], str], stops: Sequence[str], ends: Collection[int]
) -> Ended:
    """Where generated `ids` end; `text_of` decodes tokens.

    The tokens go up to the one that completes the first stop string, or to the one of `ends` that ends the sequence.
    """
    ids = list(ids)
    has_ended = bool(ids) and ids[-1] in ends
    said = ids[:-1] if has_ended else ids
    text = text_of(said)
    if _first(text, stops) is None:
        return Ended(ids, text, has_ended)
    # The first token after which a stop string is there: it is there after all later ones, too.
    count = 1 + bisect_left(range(1, len(said)), True, key=lambda n: _first(text_of(said[:n]), stops) is not None)
    part = text_of(said[:count])
    return Ended(said[:count], part[: _first(part, stops)], True)


def check_stops(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """The stop strings of an argument `stop`; raises `UserError` unless they are texts that are not empty."""
    if not (stop is None or isinstance(stop, str | Iterable)):
        raise UserError(f"stop is {short(stop)}, expected a text or several")
    stops = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
    for one in stops:
        if not isinstance(one, str) or not one:
            raise UserError(f"stop holds {short(one)}, expected texts of at least one character")
    return stops


def end_tokens(configs: Sequence[tuple[str, Mapping[str, Any]]], of_tokenizer: int | None, size: int) -> list[int]:
    """The ids of the tokens that end a sequence: the first `eos_token_id` among `configs`, else that of the tokenizer.

    `configs` are the names and contents of generation_config.json and config.json, in this order; `size` is that of the
    vocabulary. Raises `UserError` for what are no ids.
    """
    for name, config in configs:
        given = config.get("eos_token_id")
        if given is None:
            continue
        ids = given if isinstance(given, list) else [given]
        if not all(type(id) is int and 0 <= id < size for id in ids):
            raise UserError(f"eos_token_id in {name} is {short(given)}, expected ids of tokens below {size}")
        return ids
    return [] if of_tokenizer is None else [of_tokenizer]


def sequence_ends(
    configs: Sequence[tuple[str, Mapping[str, Any]]], tokenizer: PreTrainedTokenizerBase, size: int
) -> tuple[int, ...]:
    """`end_tokens`, and what the chat template writes behind a turn, which may be none of them."""
    ends = end_tokens(configs, tokenizer.eos_token_id, size)
    if has_chat_template(tokenizer):
        with suppress(UserError):  # a template that refuses a plain turn ends none
            ends = [*ends, *(id for id in turn_ends(tokenizer) if id < size)]
    return tuple(dict.fromkeys(ends))


def _first(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of `stops` begins in a text; None where there is none."""
    found = [at for at in map(text.find, stops) if at >= 0]
    return min(found, default=None)
