"""How many requests are under way at once, and how long is waited."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from jaxvalues.remote.pace import LONGEST_WAIT, START, Gate, Pace, wait_after


def answer(pace: Pace, number: int) -> None:
    for _ in range(number):
        pace.answered()


def test_it_starts_low_and_doubles_while_rounds_are_clean() -> None:
    pace = Pace(20)
    assert pace.limit == START == 4
    limits = []
    for _ in range(4):
        answer(pace, pace.limit)
        limits.append(pace.limit)
    assert limits == [8, 16, 20, 20]
    assert Pace(2).limit == 2


def test_a_429_cuts_it_by_a_fifth_and_ends_the_doubling() -> None:
    pace = Pace(100)
    for _ in range(4):
        answer(pace, pace.limit)
    assert pace.limit == 64
    pace.throttled(started=1.0, now=2.0)
    assert pace.limit == 51
    answer(pace, 51)
    assert pace.limit == 52


def test_several_429_of_one_round_count_as_one() -> None:
    pace = Pace(10)
    answer(pace, 4)
    assert pace.limit == 8
    for _ in range(5):
        pace.throttled(started=1.0, now=2.0)
    assert pace.limit == 6
    pace.throttled(started=2.5, now=3.0)  # began after the cut
    assert pace.limit == 4


def test_it_never_falls_below_one() -> None:
    pace = Pace(4)
    for second in range(10):
        pace.throttled(second + 0.5, second + 0.6)
    assert pace.limit == 1


def test_waits_are_drawn_from_zero_to_a_bound_that_doubles_up_to_a_cap() -> None:
    draws = random.Random(0)
    for attempt, most in ((1, 1), (2, 2), (4, 8), (7, LONGEST_WAIT), (20, LONGEST_WAIT)):
        waits = [wait_after(attempt, draws) for _ in range(500)]
        assert 0 <= min(waits) < most / 10
        assert most * 0.9 < max(waits) <= most


def test_retry_after_is_obeyed() -> None:
    draws = random.Random(0)
    waits = [wait_after(1, draws, asked=30.0) for _ in range(200)]
    assert 30 <= min(waits) < max(waits) <= 31  # not all come back at once
    assert wait_after(5, draws, asked=0.0) == 0


def test_the_gate_lets_through_as_many_as_the_pace_allows() -> None:
    async def run() -> int:
        gate, most, now = Gate(Pace(3)), 0, 0

        async def work() -> None:
            nonlocal most, now
            assert await gate.enter()
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1
            gate.leave()

        await asyncio.gather(*(work() for _ in range(30)))
        return most

    assert asyncio.run(run()) == 3


def test_the_gate_pauses_and_closes() -> None:
    async def run() -> tuple[float, bool, float]:
        gate, start = Gate(Pace(1)), time.monotonic()
        gate.pause(0.1)
        assert await gate.enter()
        paused = time.monotonic() - start
        waiting = asyncio.create_task(gate.enter())
        sleeping = asyncio.create_task(gate.sleep(30))
        await asyncio.sleep(0.01)
        start = time.monotonic()
        gate.close()
        await sleeping
        return paused, await waiting, time.monotonic() - start

    paused, entered, took = asyncio.run(run())
    assert paused >= 0.1
    assert not entered
    assert took < 5


@pytest.mark.parametrize("most", [1, 2, 3, 32])
def test_a_limit_is_never_above_the_most(most: int) -> None:
    pace = Pace(most)
    answer(pace, 1000)
    assert pace.limit == most
