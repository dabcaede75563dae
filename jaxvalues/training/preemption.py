"""Stopping on Ctrl-C or SIGTERM: the loop saves a checkpoint at the next step. A second Ctrl-C stops at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

import jax
import numpy as np


class StopRequest:
    """Context manager that turns SIGINT and SIGTERM into a flag, which the training and evaluation loops poll."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, every: int = 1) -> None:
        """With several processes, only every `every`-th poll synchronises them, as that makes all of them wait."""
        self.every, self.polls = every, 0
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}  # None: set outside Python, as by jax.distributed

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
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
        """Whether to stop now. A signal to one process stops all of them, so all must poll at the same steps."""
        signalled = self.signal is not None
        if jax.process_count() == 1:
            return signalled
        self.polls += 1
        if self.polls % self.every:
            return False
        from jax.experimental import multihost_utils

        return bool(np.max(multihost_utils.process_allgather(np.array(signalled))))
