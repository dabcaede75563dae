"""Two commands in one run folder: one works, the other says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import SMALL, command, start

from jaxvalues.errors import UserError
from jaxvalues.run.lock import LOCK, RunLock, locks_released

TAKES = "import sys, pathlib; from jaxvalues.run.lock import RunLock; print(RunLock(pathlib.Path(sys.argv[1])).take())"


def left_behind(folder: Path, **changes: object) -> dict:
    """The lock of a process that ended without releasing it, with some of its fields changed."""
    subprocess.run([sys.executable, "-c", TAKES, folder], check=True, capture_output=True)
    lock = json.loads((folder / LOCK).read_text()) | changes
    (folder / LOCK).write_text(json.dumps(lock))
    return lock


def test_a_lock_names_its_owner_and_is_released(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "new" / "run")
    token = lock.take()
    written = json.loads((tmp_path / "new" / "run" / LOCK).read_text())
    assert (written["pid"], written["token"]) == (os.getpid(), token)
    with pytest.raises(
        UserError, match=rf"is in use by process {os.getpid()} on .+ since 20\d\d-.+: wait for it, or give"
    ):
        RunLock(tmp_path / "new" / "run").take()
    assert json.loads((tmp_path / "new" / "run" / LOCK).read_text())["token"] == token
    lock.release()
    assert not (tmp_path / "new").exists()  # nothing was written, so nothing stays


def test_what_was_written_stays_when_a_lock_is_released(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "run")
    lock.take()
    (tmp_path / "run" / "config.yaml").write_text("")
    lock.release()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_locks_are_released_after_exceptions(tmp_path: Path) -> None:
    outer = RunLock(tmp_path / "outer")
    outer.take()

    @locks_released()
    def work() -> None:
        RunLock(tmp_path / "inner").take()
        raise ValueError("in between")

    with pytest.raises(ValueError, match="in between"):
        work()
    assert not (tmp_path / "inner").exists()
    assert (tmp_path / "outer" / LOCK).exists()
    outer.release()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_locks_are_released_where_a_signal_would_end_the_process(name: str, tmp_path: Path) -> None:
    number = signal.Signals[name]

    @locks_released()
    @locks_released()
    def work() -> None:
        RunLock(tmp_path / "run").take()
        signal.raise_signal(number)

    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as left:
            work()
        assert left.value.code == 128 + number
        assert not (tmp_path / "run").exists()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    left_behind(tmp_path)
    lock = RunLock(tmp_path)
    lock.take()
    lock.release()
    left_behind(tmp_path, pid=os.getpid())  # its number belongs to another process now: this one
    RunLock(tmp_path).take()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_the_lock_of_another_host_is_respected(tmp_path: Path) -> None:
    left_behind(tmp_path, host="node17")
    before = (tmp_path / LOCK).read_bytes()
    with pytest.raises(UserError, match=r"on node17 since .+: if it is over, remove .+lock\.json$"):
        RunLock(tmp_path).take()
    left_behind(tmp_path / "container", space="pid:[1]")  # a container that calls itself as this machine
    with pytest.raises(UserError, match="cannot be looked at"):
        RunLock(tmp_path / "container").take()
    assert (tmp_path / LOCK).read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"pid": "x", "token": "a"}'])
def test_a_lock_that_makes_no_sense_is_not_taken_over(content: str, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(content)
    with pytest.raises(UserError, match=r"lock\.json"):
        RunLock(tmp_path).take()
    assert (tmp_path / LOCK).read_text() == content


def test_only_one_of_many_takes_over(tmp_path: Path) -> None:
    left_behind(tmp_path)
    starts = time.time() + 1.5
    program = (
        "import sys, pathlib, time\nfrom jaxvalues.run.lock import RunLock\n"
        f"time.sleep(max(0, {starts} - time.time()))\n"
        "try: print(RunLock(pathlib.Path(sys.argv[1])).take()); time.sleep(2)\n"
        "except Exception as error: print('no', error)"
    )
    tries = [
        subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(5)
    ]
    said = [one.communicate()[0].strip() for one in tries]
    (token,) = (line for line in said if not line.startswith("no "))
    assert json.loads((tmp_path / LOCK).read_text())["token"] == token


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output: the run folder .+ cannot be made \(Not a directory\)"):
        RunLock(tmp_path / "file" / "run").take()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(UserError, match=r"output: the run folder .+ cannot be written \(No space left on device\)"):
        RunLock(tmp_path / "new" / "run").take()
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be made \(File exists\)"):
        RunLock(tmp_path / "file").take()


@pytest.mark.exhaustive
def test_two_commands_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    words = (
        "train",
        tmp_path / "small.yaml",
        f"output={tmp_path / 'run'}",
        f"runtime.compilation_cache={tmp_path / 'xla'}",
    )
    first = start(*words, interrupt=("nowhere", 0, "SIGTERM"), STEP_SECONDS="3")
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.2)
    code, _, err = command(*words)
    assert code == 1
    assert f"{tmp_path / 'run'} is in use by process {first.pid} on " in err
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert (tmp_path / "run" / LOCK).exists()
    code, _, err = command(*words)
    assert code == 0, err
    assert not (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize("place", ["gs://bucket/runs", "s3://bucket/runs", "gs:/bucket/runs", "file:///tmp/runs"])
def test_a_url_is_not_made_a_folder(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL)
    for words in (
        ("train", "small.yaml", f"output={place}"),
        ("train", "small.yaml", f"runtime.compilation_cache={place}"),
        ("predict", "runs/a", "--split", "test", "--out", place),
        ("ensemble", "runs/a", "runs/b", "--out", place),
        ("import", "runs/a", "--out", place),
        ("bench", "small.yaml", "--json", place),
    ):
        code, _, err = command(*words)
        assert code == 2
        assert "expected a folder of a mounted file system (URLs are not supported), not " in err
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]
