"""The values of the command line's options: paths, numbers and choices. Importing this imports nothing heavy."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer


class Format(StrEnum):
    """What a run can be exported to."""

    hf = "hf"
    peft = "peft"
    detector = "detector"


class Table(StrEnum):
    """How predictions of a user's file are written."""

    wide = "wide"
    long = "long"
    json = "json"


class Method(StrEnum):
    """How systems are combined."""

    mean = "mean"
    stack = "stack"


def path_option(text: str) -> Path:
    """A path of the command line, with `~` replaced by the home folder also where the shell leaves it."""
    from jaxvalues.config.reading import user_path

    return user_path(text)


def number_option(text: str) -> float:
    """The value of an option, read strictly."""
    from jaxvalues.data.numbers import parse_number

    value = parse_number(text)
    if value is None:
        raise typer.BadParameter(f"{text!r} is not a number")
    return value
