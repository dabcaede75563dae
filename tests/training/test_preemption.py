"""Signals that ask a run to stop."""

from __future__ import annotations

import ctypes
import signal
import threading

import pytest

from jaxvalues.training.preemption import StopRequest


@pytest.mark.parametrize("number", StopRequest.SIGNALS)
def test_a_signal_asks_and_does_not_interrupt(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert not stop
        signal.raise_signal(number)
        assert stop
        assert stop.signal is number


def test_a_second_interrupt_is_at_once() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # launchers repeat themselves: still polite
        assert stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in StopRequest.SIGNALS]
    with pytest.raises(ValueError, match="in between"), StopRequest():
        raise ValueError("in between")
    assert [signal.getsignal(number) for number in StopRequest.SIGNALS] == before


def test_a_handler_set_outside_python_is_no_obstacle() -> None:
    before = signal.getsignal(signal.SIGTERM)
    libc = ctypes.CDLL(None)
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        callback = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: None)
        libc.signal(int(signal.SIGTERM), callback)
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert stop
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_nothing_is_touched() -> None:
    before = [signal.getsignal(number) for number in StopRequest.SIGNALS]
    seen = []

    def work() -> None:
        with StopRequest() as stop:
            seen.extend([bool(stop), [signal.getsignal(number) for number in StopRequest.SIGNALS]])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, before]
