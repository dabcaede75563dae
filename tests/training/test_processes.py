"""Runs as processes: whatever interrupts them, the same command ends with the same bytes. Real signals, real kills."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NamedTuple

import pytest
from runs import SMALL, metrics, results, run

STEPS = 16
Attempts = list[tuple[int, str, str]]
"""Code, stdout and stderr of each command."""


class Work(NamedTuple):
    """Where the runs of this file lie."""

    folder: Path
    config: Path

    def train(self, output: str, *overrides: str) -> tuple[str, ...]:
        cache = f"runtime.compilation_cache={self.folder / 'xla'}"
        last = "training.keep=last"  # so that every step counts for the predictions
        return ("train", str(self.config), cache, last, f"output={self.folder / output}", *overrides)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("processes")
    (folder / "small.yaml").write_text(SMALL)
    return Work(folder, folder / "small.yaml")


@pytest.fixture(scope="module")
def straight(work: Work) -> Path:
    """A run that nothing disturbed."""
    code, _, err = run(*work.train("straight"))
    assert code == 0, err
    return work.folder / "straight"


@pytest.fixture(scope="module")
def stopped(work: Work) -> Attempts:
    """A run that was asked to stop again and again."""
    hangup = "SIGTERM" if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else "SIGHUP"  # nohup ignores it
    stops = [("training", 3, "SIGINT"), ("evaluation", 8, "SIGTERM"), ("training", 11, hangup), None]
    return [run(*work.train("stopped"), interrupt=interrupt) for interrupt in stops]


@pytest.fixture(scope="module")
def killed(work: Work) -> Attempts:
    """A run that was killed again and again, first while it compiled."""
    cold = f"runtime.compilation_cache={work.folder / 'cold'}"
    first = run(*work.train("killed", cold), interrupt=("compile", 0, "SIGKILL"))
    kills = [("training", 6, "SIGKILL"), ("evaluation", 8, "SIGKILL"), ("save", 12, "SIGKILL"), None]
    return [first, *(run(*work.train("killed"), interrupt=interrupt) for interrupt in kills)]


@pytest.mark.exhaustive
def test_a_run_writes_what_it_should(straight: Path) -> None:
    lines = metrics(straight)
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, STEPS + 1))
    assert [line["step"] for line in lines if line["kind"] == "held_out"] == [0, 4, 8, 12, 16]
    assert not list(straight.rglob("*.tmp"))
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["stopped", "killed"])
def test_a_disturbed_run_ends_as_an_undisturbed_one(
    name: str, work: Work, straight: Path, request: pytest.FixtureRequest
) -> None:
    code, out, err = request.getfixturevalue(name)[-1]
    assert code == 0, err
    assert "resuming at step" in out
    assert metrics(work.folder / name) == metrics(straight)
    assert results(work.folder / name) == results(straight)


@pytest.mark.slow
def test_a_stopped_run_says_how_to_go_on(stopped: Attempts) -> None:
    *stops, last = stopped
    for step, (code, _, err) in zip((3, 8, 11), stops, strict=True):
        assert code == 1
        assert f"jaxvalues: stopped at step {step} of {STEPS}, state saved; run the same command to resume" in err
        assert "Traceback" not in err
    for step, (_, out, _) in zip((3, 8, 11), (*stops[1:], last), strict=True):
        assert f"resuming at step {step}\n" in out


@pytest.mark.exhaustive
def test_kills_were_kills(killed: Attempts) -> None:
    assert [code for code, _, _ in killed] == [-9, -9, -9, -9, 0]


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(work: Work, straight: Path) -> None:
    lines, before = (straight / "metrics.jsonl").read_bytes(), results(straight)
    code, out, _ = run(*work.train("straight", "logging.tensorboard=true", "name=renamed"))
    assert code == 0
    assert "train [" not in out
    assert "Universalism: nature" in out
    assert (straight / "metrics.jsonl").read_bytes() == lines
    assert results(straight) == before
