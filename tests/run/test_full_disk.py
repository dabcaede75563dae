"""A disk that fills up in the middle of a run: one sentence, and the same command resumes once there is space."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runs import SMALL, environment, metrics, results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    tensorboard = SMALL.replace("tensorboard: false", "tensorboard: true")
    (folder / "small.yaml").write_text(f"{tensorboard}runtime: {{compilation_cache: {folder / 'xla'}}}\n")
    return folder


@pytest.fixture(scope="module")
def whole(lab: Path) -> Path:
    """The run as it is with space enough."""
    code, err = train(lab, lab / "whole")
    assert (code, err) == (0, "")
    return lab / "whole"


def train(lab: Path, output: Path, limit: int | None = None) -> tuple[int, str]:
    """Exit code and stderr of a run that may write files of at most `limit` bytes, in a process of its own."""
    before: Callable[[], None] | None = None
    if limit is not None:
        before = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # noqa: E731
    words = [sys.executable, "-m", "jaxvalues", "train", str(lab / "small.yaml"), f"output={output}"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, preexec_fn=before, check=False)
    return done.returncode, done.stderr


def check_sentence(code: int, err: str) -> None:
    assert (code, err.count("\n")) == (1, 1), err
    assert err.startswith("jaxvalues: ")
    assert "cannot be written" in err
    assert len(err) < 300


def check_same(one: Path, other: Path) -> None:
    assert results(one) == results(other)
    assert metrics(one) == metrics(other)


@pytest.mark.exhaustive
def test_a_file_that_cannot_grow(lab: Path, whole: Path) -> None:
    for limit, where in ((1_000, "tokenizer"), (10_000, "tokenizer"), (100_000, "checkpoints/chosen")):
        code, err = train(lab, lab / "limited", limit)
        check_sentence(code, err)
        assert f"{lab / 'limited' / where}: " in err
        assert not (lab / "limited/scores.json").exists()
    assert train(lab, lab / "limited") == (0, "")
    check_same(lab / "limited", whole)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A small file system in memory, whose options can be changed while it is there."""
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        words = ["mount", "-o", f"remount,{options}"] if mounted else ["mount", "-t", "tmpfs", "-o", options, "none"]
        done = subprocess.run([*words, str(tmp_path)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("this process may not mount a file system")
        mounted = True
        return tmp_path

    yield mount
    if mounted:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.exhaustive
@pytest.mark.main_cases("2200k")
@pytest.mark.parametrize("size", ["600k", "1200k", "2200k", "3m"])
def test_a_disk_that_is_full(size: str, lab: Path, whole: Path, disk: Callable[[str], Path]) -> None:
    output = disk(f"size={size}") / "run"
    check_sentence(*train(lab, output))
    assert not (output / "scores.json").exists()
    disk("size=60m")
    assert train(lab, output) == (0, "")
    check_same(output, whole)
