"""Numbers in files: what is a number for Python only is refused."""

from __future__ import annotations

import numpy as np
import pytest

from jaxvalues.data.numbers import numeric_array, parse_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("1", 1),
        ("1.", 1),
        (".5", 0.5),
        ("+0.25", 0.25),
        ("-2", -2),
        ("3e-05", 3e-5),
        ("1E2", 100),
        ("007", 7),
    ],
)
def test_numbers(text: str, number: float) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1\n",
        "1_0e-1",
        "1_000",
        "٠.٥",
        "１",
        "nan",
        "inf",
        "-infinity",
        "0x1",
        "1,5",
        "1e",
        ".",
        "e5",
        "1-",
        "²",
    ],
)
def test_what_is_no_number(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize("value", [0, 1, 0.1, 1e-45, 0.3333333333333333, float(np.nextafter(np.float32(1), 0))])
def test_what_python_writes_comes_back(value: float) -> None:
    assert parse_number(repr(value)) == value


def test_arrays_are_of_numbers_alone() -> None:
    assert numeric_array(iter([1, 0.5])).tolist() == [1.0, 0.5]
    for value in ("0.5", True, None, [0.5], 10**400):
        with pytest.raises(TypeError):
            numeric_array([0.5, value])
