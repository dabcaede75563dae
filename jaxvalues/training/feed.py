"""Batches that are made and placed ahead, in a thread, while the device computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

S, T = TypeVar("S"), TypeVar("T")

DEPTH = 2
"""How many batches wait at most. More of them would only take memory."""
_END = object()


@contextmanager
def made_ahead(items: Iterable[S], make: Callable[[S], T], depth: int = DEPTH) -> Iterator[Iterator[T]]:
    """A block with `make(item)` of every item, in order, made in a thread while what was made before is used.

    An error of the thread is raised where its item is taken. At the end of the block the thread ends, however many
    items are left.
    """
    made: queue.Queue[Any] = queue.Queue(depth)
    over = threading.Event()

    def put(one: Any) -> bool:
        while not over.is_set():
            try:
                made.put(one, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if over.is_set() or not put((make(item), None)):
                    return
        except BaseException as error:  # for the one who takes it
            put((None, error))
        else:
            put(_END)

    def take() -> Iterator[T]:
        while (one := made.get()) is not _END:
            value, error = one
            if error is not None:
                raise error
            yield value

    thread = threading.Thread(target=work, name="feed", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        over.set()
        thread.join()
