"""The guarded readers: what is wrong with a file is one sentence that names it, in no time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from jaxvalues.config.reading import entry, read_file, read_json, read_yaml, user_path
from jaxvalues.errors import UserError


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not valid JSON (Expecting value"),
        (b"[" * 20_000, "is nested too deeply, expected at most 100 levels"),
        (b"[" * 150 + b"]" * 150, "is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not valid JSON (a number has too many digits)"),
        (b'{"a": 1e999}', "is not valid JSON (the number '1e999' is too large)"),
        (b'{"a": NaN}', "is not valid JSON (NaN is not a number of JSON)"),
        (b'{"a": "\\ud800"}', "holds characters that are not valid Unicode"),
        (b'{\n"a": "\xfc"}', ", line 2: the byte 0xfc is not UTF-8"),
        (b"[]", "holds a list, expected an object: the scores"),
        (b"true", "holds true or false, expected an object: the scores"),
    ],
)
def test_json_that_is_none_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(file, "the scores")
    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)


def test_json_that_is_one_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes("\ufeff".encode() + '{"a": {"b": [1, 2.5, null, "ü😀"]}}'.encode())
    content = read_json(file, "anything")
    assert content == {"a": {"b": [1, 2.5, None, "ü😀"]}}
    assert entry(content, "a.b", list, file) == [1, 2.5, None, "ü😀"]


def test_an_entry_of_another_kind_is_named() -> None:
    for content, key, said in (
        ({}, "a", "f: has no `a`, expected an integer"),
        ({"a": None}, "a", "f: `a` is None, expected an integer"),
        ({"a": True}, "a", "f: `a` is True, expected an integer"),
        ({"a": [1]}, "a.b", "f: has no `a.b`, expected an integer"),
    ):
        with pytest.raises(UserError) as caught:
            entry(content, key, int, "f")
        assert str(caught.value) == said


def test_what_is_no_plain_file_is_never_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**40)
    cases = {
        "pipe": "is a device or a pipe",
        "loop": "cannot be read (Too many levels of symbolic links)",
        "large": "has 1,099,511,627,776 bytes, expected at most",
        ".": "cannot be read (is a folder, expected a file)",
        "absent": "no such file",
        "a\0b": "holds a NUL character",
        "a" * 300: "cannot be read (File name too long)",
    }
    for name, said in cases.items():
        with pytest.raises(UserError) as caught:
            read_file(f"{tmp_path}/{name}")
        assert said in str(caught.value)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 20_000, "is nested too deeply"),
        (BOMB, "holds more than 100,000 values, with aliases written out"),
        ("a: &a [*a]", "an alias in line 1 or below stands inside what it repeats"),
        ("a: " + "9" * 5000, "a number has too many digits"),
        ("a: !!timestamp 2024-99-99", "month must be in 1..12"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: [1", "expected ',' or ']'"),
        ("a: \x07", "the character '\\x07' is not allowed"),
        ("x" * 2**20, "bytes, expected at most 524,288"),
    ],
)
def test_yaml_that_is_none_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        read_yaml(tmp_path / "a.yaml", yaml.SafeLoader)
    assert said in str(caught.value)
    assert time.monotonic() - start < 10


def test_aliases_within_reason_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]", encoding="utf-8")
    expected = {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]}
    assert read_yaml(tmp_path / "a.yaml", yaml.SafeLoader) == expected


def test_the_home_folder_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert user_path("~/a") == Path("/somewhere/a")
    assert user_path("a/~b") == Path("a/~b")
    for path, said in (("~nobody-here/a", "is not known"), ("a\0b", "holds a NUL"), ("a\udcff", "not valid Unicode")):
        with pytest.raises(UserError, match=said):
            user_path(path)
