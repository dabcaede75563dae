"""Stopping politely: Ctrl-C and SIGTERM ask, the loop saves and stops at the next step; a second Ctrl-C is at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

import jax
import numpy as np


class StopRequest:
    """Context manager that turns SIGINT and SIGTERM into a flag that the training and evaluation loops poll."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, every: int = 1) -> None:
        """With several processes only every `every`-th look asks the others, which makes all of them wait."""
        self.every, self.looks = every, 0
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}  # None: a handler set outside Python, as by jax.distributed

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            self._previous = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        os.write(2, b"\njaxvalues: stopping at the next step; Ctrl-C again stops at once, without saving\n")

    def __bool__(self) -> bool:
        """Whether to stop now. Every process must ask at the same steps: one that was signalled stops them all."""
        asked = self.signal is not None
        if jax.process_count() == 1:
            return asked
        self.looks += 1
        if self.looks % self.every:
            return False
        from jax.experimental import multihost_utils

        return bool(np.max(multihost_utils.process_allgather(np.array(asked))))
