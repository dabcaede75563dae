"""The few shapes for which programs are compiled, whatever the lengths of prompts and answers are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

Group = TypeVar("Group", bound=Hashable)
SHORTEST = 16  # tokens


def token_bucket(tokens: int) -> int:
    """The smallest of 16, 24, 32, 48, 64, 96, 128, … (powers of two, and half-way between) that holds `tokens`."""
    power = max(power_of_two(tokens), SHORTEST)
    half = power * 3 // 4
    return half if max(tokens, SHORTEST) <= half else power


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()


def prompt_and_slots(tokens: int, new: int, most: int) -> tuple[int, int]:
    """The padded length of a prompt of `tokens`, and the room for `new` tokens; together they are at most `most`.

    A prompt's shape depends on its own length alone, so it is computed in the same way whatever stands beside it.
    """
    slots = token_bucket(new)
    if tokens + slots > most:  # near the end of the context there is room for the tokens asked for, and no more
        slots = new
    return min(token_bucket(tokens), most - slots), slots


def batches(groups: Sequence[Group], size: Callable[[Group], int]) -> Iterator[tuple[Group, list[int]]]:
    """The indices of `groups` in batches of at most `size(group)`, all of one group each, in order within the group."""
    for group in dict.fromkeys(groups):
        members = [i for i, one in enumerate(groups) if one == group]
        for first in range(0, len(members), size(group)):
            yield group, members[first : first + size(group)]
