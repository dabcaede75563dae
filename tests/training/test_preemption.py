"""Signals that ask a run to stop."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from jaxvalues.training import preemption, processes
from jaxvalues.training.preemption import StopRequest


@pytest.fixture(autouse=True)
def _signals_at_their_defaults() -> Iterator[None]:
    """A shell may have started these tests with signals ignored, as nohup does."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


@pytest.mark.parametrize("number", StopRequest.SIGNALS)
def test_a_signal_asks_and_does_not_interrupt(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert not stop
        signal.raise_signal(number)
        assert stop
        assert stop.signal is number


@pytest.mark.parametrize("number", StopRequest.SIGNALS)
def test_a_screen_that_is_gone_is_no_obstacle(number: signal.Signals) -> None:
    """A terminal that closes sends SIGHUP, and `2>&1 | tee` ends with the Ctrl-C that stops the run."""
    kept = os.dup(2)
    read, write = os.pipe()
    try:
        os.close(read)
        os.dup2(write, 2)
        with StopRequest() as stop:
            signal.raise_signal(number)
            assert stop.signal is number
    finally:
        os.dup2(kept, 2)
        for one in (kept, write):
            os.close(one)


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


def test_a_run_under_nohup_survives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_where_jax_hears_sigterm_other_signals_become_one(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))  # as jax.distributed sets its own
    monkeypatch.setattr(preemption, "has_sync_point", lambda: True)
    try:
        with StopRequest() as stop:
            signal.raise_signal(number)
            assert heard == ["SIGTERM"]
            assert stop.signal is number
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert heard == ["SIGTERM"] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_once_stopping_is_agreed_every_look_says_so(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations look in between: where only every n-th look asked and answered, the loop could miss it for ever."""
    from jax.experimental import multihost_utils

    monkeypatch.setattr(processes, "is_alone", lambda: False)
    for module in (processes, preemption):
        monkeypatch.setattr(module, "has_sync_point", lambda: False)
    monkeypatch.setattr(processes, "_stopping", processes._Stopping())
    monkeypatch.setattr(processes._Stopping, "every", every)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda mine: [mine])
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        looks = [bool(stop) for _ in range(20)]
    assert looks == [False] * (every - 1) + [True] * (21 - every)


def test_jax_s_sync_point_is_asked_with_a_count_that_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX says yes at one count only, which it may choose in one run and reach in the next one of the same process."""
    from jax.experimental import multihost_utils

    asked: list[int] = []
    monkeypatch.setattr(processes, "is_alone", lambda: False)
    monkeypatch.setattr(processes, "_stopping", processes._Stopping())
    for module in (processes, preemption):
        monkeypatch.setattr(module, "has_sync_point", lambda: True)
    monkeypatch.setattr(
        multihost_utils, "reached_preemption_sync_point", lambda count: asked.append(count) or count == 5
    )
    answers = []
    for _ in range(2):  # two runs
        with StopRequest() as stop:
            answers += [bool(stop) for _ in range(4)]
    assert asked == [1, 2, 3, 4, 5]
    assert answers == [False] * 4 + [True] * 4
