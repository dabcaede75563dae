"""Numbers in files, read strictly. Python's own `float` also takes 1_0e-1, nan, blanks and the digits of any script."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def parse_number(text: str) -> float | None:
    """The number that a text is, such as 1, -0.5 or 3e-05; None for any other text."""
    return float(text) if _NUMBER.fullmatch(text) else None


def numeric_array(values: Iterable[object]) -> np.ndarray:
    """Numbers of a JSON or YAML file as float64 [n]. Raises TypeError for a text, true, null or a huge integer."""
    values = list(values)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{value!r} is not a number")
    try:
        return np.array(values, np.float64)
    except OverflowError:
        raise TypeError("a number is too large") from None
