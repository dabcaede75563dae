"""Text files, read strictly, and whether a text shows anything."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Callable
from pathlib import Path

from jaxvalues.errors import UserError

Report = Callable[[str], None]
"""Takes one sentence about one problem. `stop` raises the first; `list.append` collects them all."""


def stop(problem: str) -> None:
    """The default `Report`: the first problem is a UserError."""
    raise UserError(problem)


def read_text(path: Path, report: Report = stop) -> str | None:
    """The text of a UTF-8 file; None, after a report, for a file that is not plain text."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return report(f"{path}: no such file")
    except OSError as error:
        return report(f"{path}: cannot be read ({error.strerror})")
    if problem := _bytes_problem(data):
        return report(f"{path}{problem}")
    return data.decode("utf-8")


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: empty, or all spaces, control characters and zero-width ones."""
    return all(unicodedata.category(character) in ("Cc", "Cf", "Zs", "Zl", "Zp") for character in text)


def _bytes_problem(data: bytes) -> str | None:
    if data.startswith(codecs.BOM_UTF8):
        return ", line 1: starts with a byte order mark, expected UTF-8 without one"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return f", line {line}: the byte 0x{data[error.start]:02x} is not UTF-8, in which the file must be saved"
    if (nul := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, nul) + 1
        return f", line {line}: holds a NUL byte, expected plain text"
    return None
