"""One request, sent until it is answered or its attempts are used up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from jaxvalues.errors import UserError
from jaxvalues.remote.budget import Budget, UsedUp
from jaxvalues.remote.client import Client, Failed
from jaxvalues.remote.messages import Answer, Malformed, Request, read_answer
from jaxvalues.remote.pace import LONGEST_ASKED, Gate, wait_after

Check = Callable[[Answer], None]
"""Raises Failed for an answer that is not what was asked for."""


class Reply(NamedTuple):
    """A response, what it says, and what it took."""

    response: dict[str, Any]
    answer: Answer
    attempts: int
    latency: float


class Unanswered(Exception):
    """A request that has no answer after its last attempt, which failed as `failed` says."""

    def __init__(self, failed: Failed, attempts: int) -> None:
        super().__init__(failed.said)
        self.failed, self.attempts = failed, attempts


class Stopped(Exception):
    """A request that was given up after `attempts` because nothing more may be sent; `error` says why, if it does."""

    def __init__(self, attempts: int, error: UserError | None = None) -> None:
        super().__init__(str(error))
        self.attempts, self.error = attempts, error


class Sender:
    """Sends requests through a gate, within a budget, with waits between attempts; none after a failure of a `hopeless`
    kind."""

    def __init__(
        self, client: Client, gate: Gate, budget: Budget, attempts: int, *, hopeless: Collection[str] = ()
    ) -> None:
        self.client, self.gate, self.budget, self.attempts = client, gate, budget, attempts
        self._hopeless = hopeless
        self._random = random.Random()  # two processes that are refused at once must not come back at once

    async def send(self, request: Request, check: Check) -> Reply:
        """The reply to a request.

        Raises Unanswered after the last attempt, or after one that makes others useless. Raises Stopped where the gate
        was closed, and with an error where the budget is used up, where the endpoint asks for too long a wait, and
        where `Client.send` raises one.
        """
        for attempt in range(1, self.attempts + 1):
            if not await self.gate.enter():
                raise Stopped(attempt - 1)
            started, answer = time.monotonic(), None
            try:
                reserved = self.budget.reserve(request)
                try:
                    response = await self.client.send(request.payload)
                    answer = _read(response)
                finally:
                    self.budget.settle(request, answer, reserved)
                check(answer)
                self.gate.pace.answered()
                return Reply(response, answer, attempt, time.monotonic() - started)
            except Failed as failed:
                wait = self._failed(failed, attempt, started)
            except UserError as error:
                raise Stopped(attempt - isinstance(error, UsedUp), error) from None
            finally:
                self.gate.leave()
            await self.gate.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _failed(self, failed: Failed, attempt: int, started: float) -> float:
        """Slow down where asked to; the seconds until the next attempt. Raises Unanswered where there is none."""
        if failed.throttled:
            self.gate.pace.throttled(started, time.monotonic())
        if failed.after is not None and failed.after > LONGEST_ASKED:
            said = f"{self.client.endpoint} asks to wait {failed.after:,.0f} s ({failed.said})"
            raise Stopped(attempt, UserError(said))
        if not failed.retry or failed.kind in self._hopeless or attempt == self.attempts:
            raise Unanswered(failed, attempt)
        if failed.after is not None:
            self.gate.pause(failed.after)
        return wait_after(attempt, self._random, failed.after)


def _read(response: Any) -> Answer:
    try:
        return read_answer(response)
    except Malformed as error:
        raise Failed("malformed", f"the response is {error}") from None
