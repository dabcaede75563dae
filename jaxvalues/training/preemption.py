"""Stopping on Ctrl-C, SIGTERM or SIGHUP: the loop saves a checkpoint at its next step. A second Ctrl-C ends at once."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType

from jaxvalues.training.processes import agree_to_stop, has_sync_point


class StopRequest:
    """Context manager that turns signals into a flag, which the training and evaluation loops poll.

    With several processes, a signal to one of them stops all. JAX hears SIGTERM itself then, so it is left alone, and
    the other signals are passed on as SIGTERM.
    """

    SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}  # None: set outside Python

    def __enter__(self) -> StopRequest:
        self._forwards = has_sync_point()
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            numbers = [number for number in self.SIGNALS if not self._is_left_alone(number)]
            self._previous = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _is_left_alone(self, number: signal.Signals) -> bool:
        if number == signal.SIGTERM:
            return self._forwards
        return number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN  # nohup ignores SIGHUP

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if self._forwards:
            signal.raise_signal(signal.SIGTERM)
        with suppress(OSError):  # a terminal that was closed, or `tee` that the same Ctrl-C ended
            os.write(2, b"\njaxvalues: stopping at the next step; Ctrl-C again stops at once, without saving\n")

    def __bool__(self) -> bool:
        """Whether to stop now. All processes must poll equally often; once true, it stays true."""
        return agree_to_stop(self.signal is not None)
