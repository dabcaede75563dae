"""What a progress line says, on a terminal and in a log file."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from jaxvalues.training import progress
from jaxvalues.training.progress import ProgressLine


def terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


def shown(line: ProgressLine) -> str:
    paper = Console(file=io.StringIO(), width=line.console.width)
    paper.print(line.progress.get_renderable())
    return paper.file.getvalue().rstrip()


def test_compiling_is_said_in_place_of_a_time_that_is_not_known() -> None:
    console = terminal()
    with ProgressLine(console, "step", 1200) as line:
        line.say("compiling")
        assert shown(line).startswith("step 0 of 1,200")
        assert shown(line).endswith("compiling")
        assert "left" not in shown(line)
        assert "-:--" not in console.file.getvalue()


def test_stages_are_counted_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENCE_S", -1.0)
    console = Console(file=io.StringIO(), width=80)
    with ProgressLine(console, "test: row", 8) as line:
        line.begin("first turns", 8)
        line.advance(8)
        line.begin("second turns", 16)
        line.known(4)
        line.advance(4)
    assert console.file.getvalue().splitlines() == [
        "test: row 8 of 8 (first turns)",
        "test: rows: 4 of 16 were done before (second turns)",
        "test: row 8 of 16 (second turns)",
    ]


@pytest.mark.parametrize("width", [60, 80])
def test_the_time_left_comes_with_the_first_steps(width: int) -> None:
    now = [100.0]
    line = ProgressLine(terminal(width), "step", 100)
    line.progress.get_time = lambda: now[0]
    with line:
        for _ in range(10):
            now[0] += 1.0
            line.advance(1, "loss 0.1234  120.0 arguments/s")
        text = shown(line)
    assert "step 10 of 100" in text
    assert text.endswith("1:30 left")
    assert len(text) <= width


def test_a_log_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    console, now = Console(file=io.StringIO(), width=80), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with ProgressLine(console, "row", 100) as line:
        for _ in range(10):
            now[0] += 8.0
            line.advance(10, "loss 0.5")
    lines = console.file.getvalue().split("\n")
    assert lines == ["row 40 of 100  loss 0.5", "row 80 of 100  loss 0.5", ""]
