"""How many requests are under way at once: adapted to what the endpoint stands; and how long to wait between attempts.

As in inspect_ai: it starts low, grows while rounds are clean, and is cut by a fifth at a 429.
"""

from __future__ import annotations

import asyncio
import random
import time

START = 4
"""Requests at once in the beginning."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds: the longest wait after the first failed attempt, which doubles up to the longest of all."""
LONGEST_ASKED = 600.0
"""Seconds: the longest Retry-After that is waited for; a command that is asked to wait longer ends."""


class Pace:
    """The number of requests that may be under way, `limit`.

    A round is as many answers as the limit. After a clean one the limit doubles until the first 429, and then grows by
    one. Several 429 of one round count as one.
    """

    def __init__(self, most: int) -> None:
        self.most, self.limit = most, min(START, most)
        self._doubles, self._clean, self._cut_at = True, 0, float("-inf")

    def answered(self) -> None:
        """A request was answered."""
        self._clean += 1
        if self._clean >= self.limit:
            self.limit = min(self.most, self.limit * 2 if self._doubles else self.limit + 1)
            self._clean = 0

    def throttled(self, started: float, now: float) -> None:
        """A request that `started` then was refused with a 429 `now`."""
        self._clean = 0
        if started < self._cut_at:
            return
        self.limit = max(1, min(self.limit - 1, self.limit * 4 // 5))
        self._doubles, self._cut_at = False, now


def wait_after(attempt: int, random: random.Random, asked: float | None = None) -> float:
    """Seconds to wait after attempt number `attempt` (from 1): full jitter, and no less than was `asked` for.

    Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015.
    """
    most = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (attempt - 1))
    if asked is None:
        return random.uniform(0, most)
    return asked + random.uniform(0, min(most, asked / 10))


class Gate:
    """Lets as many requests through as the pace allows, and none while the endpoint asks to wait."""

    def __init__(self, pace: Pace) -> None:
        self.pace, self.active = pace, 0
        self.closed = False
        self._opens, self._changed = 0.0, asyncio.Event()

    async def enter(self) -> bool:
        """Wait for a place. False: the gate was closed."""
        while not self.closed:
            pause = self._opens - time.monotonic()
            if pause <= 0 and self.active < self.pace.limit:
                self.active += 1
                return True
            await self._wait(pause if pause > 0 else None)
        return False

    def leave(self) -> None:
        """Give a place back."""
        self.active -= 1
        self._changed.set()

    def pause(self, seconds: float) -> None:
        """Let nobody through for so long."""
        self._opens = max(self._opens, time.monotonic() + seconds)

    def close(self) -> None:
        """Let nobody through any more."""
        self.closed = True
        self._changed.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the closing."""
        until = time.monotonic() + seconds
        while not self.closed and (left := until - time.monotonic()) > 0:
            await self._wait(left)

    async def _wait(self, seconds: float | None) -> None:
        """Until something changes, or so many seconds."""
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass
