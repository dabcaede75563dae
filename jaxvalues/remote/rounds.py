"""What is asked about arguments, in rounds: a generator yields requests, and is sent their results.

A second round may quote the answers of the first. The same generator is asked, counted, or written to batch files.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple

from jaxvalues.remote.budget import CHARACTERS
from jaxvalues.remote.messages import Answer, Request, Result
from jaxvalues.remote.store import Contents
from jaxvalues.remote.tally import Asked

Rounds = Generator[list[Request], list[Result], Asked]
"""Yields the requests of a round, is sent their results in the same order, and returns the logits."""


def ask_all(rounds: Rounds, ask: Callable[[Sequence[Request]], list[Result]]) -> Asked:
    """What comes of rounds whose requests `ask` answers."""
    try:
        requests = next(rounds)
        while True:
            requests = rounds.send(ask(requests))
    except StopIteration as end:
        return end.value


class Pending(NamedTuple):
    """How far a store has come with rounds."""

    stored: list[Request]
    """Requests with an answer."""
    too_long: list[Request]
    """Those that were refused as too long, where shorter ones are asked in their place."""
    missing: list[Request]
    """Those without an answer that can be asked now."""
    later: list[Request]
    """Those that depend on answers of `missing`, as if these were as long as they may be."""


def pending(make: Callable[[], Rounds], contents: Contents, number: int) -> Pending:
    """What is still to be asked of `number` rounds that `make` begins; later ones may depend on the answers."""
    found, known = Pending([], [], [], []), set()
    for refused, one in _walked(make(), contents, number, lambda _: "unanswered"):
        found.too_long.extend(refused)
        (found.stored if one.key in contents.answers else found.missing).append(one)
        known.add(one.key)
    if number > 1 and found.missing:
        found.later.extend(one for _, one in _walked(make(), contents, number, _longest) if one.key not in known)
    return found


def _walked(
    rounds: Rounds, contents: Contents, number: int, stand_in: Callable[[Request], Result]
) -> Iterator[tuple[list[Request], Request]]:
    """Each request of `number` rounds, with those before it that were refused as too long; `stand_in` gives what is
    sent for one without an answer."""
    requests = next(rounds)
    for left in reversed(range(number)):
        asked = []
        for request in requests:
            *refused, one = contents.tried(request)
            yield refused, one
            asked.append(contents.answers[one.key].answer if one.key in contents.answers else stand_in(one))
        if left:
            requests = rounds.send(asked)


def _longest(request: Request) -> Answer:
    """A stand-in for an answer, as long as it may be."""
    return Answer("x" * (CHARACTERS * request.most_tokens), "stop", None, None, None, None)
