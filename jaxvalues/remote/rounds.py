"""What is asked about arguments, in rounds: a generator yields requests, and is sent their results.

A second round may quote the answers of the first. The same generator is asked, counted, or written to batch files.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
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
    """Those without an answer, of the first round that has any."""
    later: list[Request]
    """Those of later rounds without an answer. Those that depend on `missing` are as if these were as long as they may
    be."""


def pending(rounds: Rounds, contents: Contents, number: int) -> Pending:
    """What is still to be asked of `number` rounds, of which later ones may depend on the answers."""
    found, answers = Pending([], [], [], []), contents.answers
    requests = next(rounds)
    for left in reversed(range(number)):
        unknown, asked = found.later if found.missing else found.missing, []
        for request in requests:
            *refused, one = contents.tried(request)
            found.too_long.extend(refused)
            (found.stored if one.key in answers else unknown).append(one)
            asked.append(one)
        if left:
            requests = rounds.send([answers[one.key].answer if one.key in answers else _longest(one) for one in asked])
    return found


def _longest(request: Request) -> Answer:
    """A stand-in for an answer, as long as it may be."""
    return Answer("x" * (CHARACTERS * request.most_tokens), "stop", None, None, None, None)
