"""Asking an endpoint many requests: what the store has is not asked again, and what is answered is stored at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar

from jaxvalues.config import ModelConfig
from jaxvalues.errors import UserError
from jaxvalues.remote.budget import Budget, UsedUp
from jaxvalues.remote.client import FORBIDDEN, TOO_LONG, Client
from jaxvalues.remote.messages import Request, Result
from jaxvalues.remote.pace import Gate, Pace
from jaxvalues.remote.probe import Found, check_answer, is_alive, probe, recall
from jaxvalues.remote.sender import Sender, Stopped, Unanswered
from jaxvalues.remote.store import AnswerStore, Contents

MOST_FAILED = 20
"""Requests without an answer after which nothing more is asked, where none was answered at all."""

T = TypeVar("T")
Progress = Callable[[int, str], None]
"""Gets the number of requests that have ended just now, and what to say besides."""
Watch = Callable[[int], AbstractContextManager[Progress]]
"""Watches a number of requests being asked."""


@contextmanager
def _unwatched(total: int) -> Iterator[Progress]:
    yield lambda ended, said: None


def find_out(config: ModelConfig, budget: Budget) -> Found:
    """What the endpoint of a config can do. Raises UserError as `probe`."""

    async def ask(sender: Sender) -> Found:
        return await probe(sender, config.id, config.remote.parameters)

    return _run(config, Gate(Pace(1)), budget, ask)


def look_up(config: ModelConfig, contents: Contents, budget: Budget) -> tuple[Found, int]:
    """What the endpoint of a config can do, and the requests that this took just now: 0 where a store knows it.

    Requests that it took before count too. Raises UserError as `probe`.
    """
    budget.requests += contents.probes[config.endpoint, config.id]
    known, before = recall(contents, config.endpoint, config.id), budget.requests
    return (find_out(config, budget), budget.requests - before) if known is None else (known, 0)


def find_in(store: AnswerStore, config: ModelConfig, budget: Budget) -> Found:
    """`look_up` in a store, which keeps what was found out just now."""
    found, probed = look_up(config, store.contents, budget)
    if probed:
        store.add_endpoint(config.endpoint, config.id, found.to_json(), probed)
    return found


class Session:
    """Asks requests of one run. Called with some, it returns their answers; in a word why, for those without one.

    Where nothing can be answered any more, it raises UserError, which says why; what was answered is stored.
    """

    def __init__(
        self, config: ModelConfig, store: AnswerStore, found: Found, budget: Budget, watch: Watch = _unwatched
    ) -> None:
        self.config, self.store, self.found, self.budget, self.watch = config, store, found, budget, watch
        self._failures: dict[str, str] = {}
        self.sent = Counter[str]()
        """How many requests of this session were `answered` and `unanswered`, and how many attempts were `retried`."""
        self.examples_left_out = Counter[int]()
        """{number of examples left out: requests that were asked so, as the endpoint refuses them as too long}."""
        self._counted: set[str] = set()
        self._pace = Pace(config.remote.concurrency)

    def __call__(self, requests: Sequence[Request]) -> list[Result]:
        """The answers to requests, in their order."""
        contents = self.store.contents
        answers, asked = contents.answers, [contents.tried(one)[-1] for one in requests]
        todo = list({one.key: one for one in asked if one.key not in answers}.values())
        self.count(requests)
        if todo:
            with self.watch(len(todo)) as progress:
                has_answered = any(one.key in answers for one in asked) or self.sent["answered"] > 0
                asking = _Asking(self, todo, progress, has_answered)
                _run(self.config, asking.gate, self.budget, asking.run)
            if asking.ended is not None:
                have = sum(contents.tried(one)[-1].key in answers for one in requests)
                more = " with a larger budget" if isinstance(asking.ended, UsedUp) else ""
                raise type(asking.ended)(
                    f"{asking.ended}; {have:,} of {len(requests):,} answers are kept in {self.store.path}, and the "
                    f"same command{more} asks only the rest"
                )
        for request in requests:
            if left_out := len(contents.tried(request)) - 1:
                self.examples_left_out[left_out] += 1
        return self.count(requests)

    def count(self, requests: Sequence[Request]) -> list[Result]:
        """Count what was sent for these requests before, once. Returns the answers that they have; asks nothing."""
        have, results = self.store.contents, []
        for request in requests:
            tried = have.tried(request)
            for one in tried:
                if one.key not in self._counted:
                    self._counted.add(one.key)
                    self.budget.already(one, have.failed.get(one.key, 0), have.answers.get(one.key))
            key = tried[-1].key
            results.append(have.answers[key].answer if key in have.answers else self._failures.get(key, "unanswered"))
        return results


class _Asking:
    """Workers that ask the same list of requests until it is empty or something makes it useless to go on."""

    def __init__(self, session: Session, todo: Sequence[Request], progress: Progress, has_answered: bool) -> None:
        self.session, self.gate = session, Gate(session._pace)
        self.ended: UserError | None = None
        self._progress = progress
        self._requests: Iterator[Request] = iter(todo)
        self._workers = min(len(todo), session.config.remote.concurrency)
        self._has_answered = has_answered  # before these, so that some without an answer are no sign of a fault
        self._answered_at, self._failed = float("-inf"), 0

    async def run(self, sender: Sender) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work(sender))

    async def _work(self, sender: Sender) -> None:
        for request in self._requests:
            if self.gate.closed:
                return
            try:
                left: Request | None = request
                while left is not None:
                    left = await self._ask(sender, left)
            except UserError as error:  # the store cannot be written
                self._end(error)

    async def _ask(self, sender: Sender, request: Request) -> Request | None:
        """Ask one request; returns one to ask in its place, if it was too long.

        What is under way elsewhere is still stored where this one ends everything.
        """
        session, begun = self.session, time.monotonic()
        try:
            reply = await sender.send(request, partial(check_answer, session.found, request))
            session.store.add_answer(request, reply.response, attempts=reply.attempts, latency=reply.latency)
        except Unanswered as error:
            if error.failed.kind != TOO_LONG or request.shorter is None:
                await self._unanswered(sender, request, error, begun)
            elif (shorter := self._shorter(request, error)) is not None:
                return shorter
        except Stopped as stopped:
            if stopped.attempts:
                session.store.add_failure(request, "stopped", stopped.attempts)
            if stopped.error is not None:
                self._end(stopped.error)
            return None
        else:
            session.sent["answered"] += 1
            session.sent["retried"] += reply.attempts - 1
            self._answered_at = time.monotonic()
        self._progress(1, f"{self.gate.active} at once")
        return None

    def _shorter(self, request: Request, error: Unanswered) -> Request | None:
        """What to ask in the place of a request that was refused as too long; None where it has an answer already."""
        session, contents = self.session, self.session.store.contents
        session.store.add_failure(request, error.failed.said, error.attempts, too_long=True)
        shorter = contents.tried(request)[-1]
        session.count([shorter])
        return None if shorter.key in contents.answers else shorter

    async def _unanswered(self, sender: Sender, request: Request, error: Unanswered, begun: float) -> None:
        """Note a request without an answer; end all where no other request can have one."""
        session, failed = self.session, error.failed
        session._failures[request.key] = failed.kind
        session.store.add_failure(request, failed.said, error.attempts)
        session.sent["unanswered"] += 1
        session.sent["retried"] += error.attempts - 1
        self._failed += 1
        never = self._answered_at == float("-inf") and not self._has_answered
        may_be_gone = failed.retry or failed.kind == str(FORBIDDEN)
        in_vain = may_be_gone and self._answered_at < begun and not self.gate.closed
        model = session.config
        try:
            if in_vain and not await is_alive(sender, model.id, model.remote.parameters, session.found):
                gone = UserError(f"{model.endpoint} no longer answers: {failed.said}" if failed.retry else failed.said)
                self._end(gone)
                return
        except UserError as other:  # which is no sign that it is gone
            self._end(other)
            return
        if never and self._failed >= MOST_FAILED:
            self._end(UserError(f"{session.config.endpoint} answers none of {self._failed} questions: {failed.said}"))

    def _end(self, error: UserError) -> None:
        self.ended = self.ended or error
        self.gate.close()


def _run(config: ModelConfig, gate: Gate, budget: Budget, work: Callable[[Sender], Coroutine[Any, Any, T]]) -> T:
    """Run asynchronous work with a sender to the endpoint of a config."""

    async def connected() -> T:
        async with Client(config.endpoint, config.remote.timeout) as client:
            return await work(Sender(client, gate, budget, config.remote.attempts))

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(connected())
    with ThreadPoolExecutor(1) as thread:  # in a notebook, a loop is running in this one
        return thread.submit(asyncio.run, connected()).result()
