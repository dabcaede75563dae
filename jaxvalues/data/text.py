"""Reads text files strictly, and finds texts without visible characters."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from jaxvalues.config.reading import read_file
from jaxvalues.errors import UserError

ProblemHandler = Callable[[str], None]
"""A function that takes one sentence about one problem: `raise_problem` raises it, `list.append` collects it."""

_CSV_QUOTED = re.compile(r'"(?:[^"]|"")*+"')


def raise_problem(problem: str) -> None:
    """The default `ProblemHandler`: raises the problem as a UserError."""
    raise UserError(problem)


def read_text(path: Path, on_problem: ProblemHandler = raise_problem) -> str | None:
    """The text of a UTF-8 file. For a file that cannot be read as plain text, calls `on_problem` and returns None."""
    try:
        data = read_file(path)
    except UserError as error:
        return on_problem(str(error))
    if problem := _bytes_problem(data):
        return on_problem(f"{path}{problem}")
    return data.decode("utf-8")


def is_blank(text: str) -> bool:
    """Whether a text has no visible character: only spaces, control characters and zero-width characters, if any."""
    return all(unicodedata.category(character) in ("Cc", "Cf", "Zs", "Zl", "Zp") for character in text)


def is_csv_quoted(field: str) -> bool:
    """Whether a CSV writer put a field in quotes: it begins and ends with one, and those inside are doubled.

    A field that has no quote inside may as well be a text in quotation marks, and is not meant.
    """
    return _CSV_QUOTED.fullmatch(field) is not None and '""' in field[1:-1]


def _bytes_problem(data: bytes) -> str | None:
    if data.startswith(codecs.BOM_UTF8):
        return ", line 1: the file starts with a byte order mark, expected UTF-8 without one"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return f", line {line}: the byte 0x{data[error.start]:02x} is not UTF-8, expected a file in UTF-8"
    if (nul := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, nul) + 1
        return f", line {line}: the line contains a NUL byte, expected plain text"
    return None
