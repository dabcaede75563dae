"""What is asked about arguments, in rounds: a generator yields requests, and is sent their results.

A second round may quote the answers of the first. The same generator is asked, counted, or written to batch files.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from jaxvalues.remote.messages import Request, Result
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
    missing: list[Request]
    """Those without one, of the first round that has any."""
    is_last: bool
    """Whether nothing is asked after these are answered, as far as one can know."""


def pending(rounds: Rounds, contents: Contents, number: int) -> Pending:
    """What is still to be asked of `number` rounds, of which later ones may depend on the answers."""
    stored: list[Request] = []
    try:
        requests = next(rounds)
        for passed in range(1, number + 1):
            stored += [one for one in requests if one.key in contents.answers]
            if missing := [one for one in requests if one.key not in contents.answers]:
                return Pending(stored, missing, passed == number)
            requests = rounds.send([contents.answers[one.key].answer for one in requests])
    except StopIteration:
        pass
    return Pending(stored, [], True)
