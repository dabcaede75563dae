"""Files are whole or not there, also on a disk that is full; folders that cannot be written to are found before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jaxvalues.config.writing import check_writable, write_whole, writing
from jaxvalues.errors import UserError


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    write_whole(file, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"a\.txt: cannot be written \(No space left on device\)"):
        write_whole(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_what_the_system_refuses_names_the_file() -> None:
    with (
        pytest.raises(UserError, match=r"^x: cannot be written \(No space left on device\); make space"),
        writing("x", "; make space"),
    ):
        full()


def test_folders_are_tried_before_they_are_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "a/b/c", "the folder")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, said in (
        (tmp_path / "file/x", "file is no folder"),
        (tmp_path / "loop/x", "Too many levels of symbolic links"),
        ("/proc/x", "nothing can be written there"),
        ("/dev/null/x", "/dev/null is no folder"),
        (tmp_path / ("a" * 300), "File name too long"),
    ):
        with pytest.raises(UserError, match=said):
            check_writable(path, "the folder")
