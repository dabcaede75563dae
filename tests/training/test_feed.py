"""Batches made ahead: the same ones in the same order, errors where they are taken, and no thread that is left."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from jaxvalues.training.feed import DEPTH, made_ahead


def threads() -> int:
    return sum(thread.name == "feed" for thread in threading.enumerate())


def test_all_in_order() -> None:
    with made_ahead(range(100), lambda item: item**2) as made:
        assert list(made) == [item**2 for item in range(100)]
    assert threads() == 0


def test_an_endless_stream_is_made_only_a_little_ahead_and_ends_with_the_block() -> None:
    begun: list[int] = []
    with made_ahead(itertools.count(), lambda item: begun.append(item) or item) as made:
        assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
        time.sleep(0.3)
        assert threads() == 1
    assert threads() == 0
    assert 5 < len(begun) <= 5 + DEPTH + 1
    assert begun == list(range(len(begun)))


def test_the_next_one_is_made_while_this_one_is_used() -> None:
    second = threading.Event()
    with made_ahead(range(2), lambda item: second.set() if item else None) as made:
        next(made)
        assert second.wait(5)


def test_an_error_is_raised_where_its_item_is_taken() -> None:
    with made_ahead([2, 1, 0, 5], lambda item: 6 // item) as made:
        assert [next(made), next(made)] == [3, 6]
        with pytest.raises(ZeroDivisionError):
            next(made)
    assert threads() == 0


def test_an_error_in_the_block_ends_the_thread() -> None:
    def block() -> None:
        with made_ahead(itertools.count(), str) as made:
            next(made)
            raise KeyError

    with pytest.raises(KeyError):
        block()
    assert threads() == 0
