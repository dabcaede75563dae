"""The tables of a bench fit the terminal, and every figure is there."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from jaxvalues.bench.report import render


def contender(seconds: float) -> dict[str, Any]:
    return {
        "is": {
            "parameters": 124_000_000, "dtype": "float32", "device": "cpu", "platform": "cpu",
            "versions": {"jax": "0.10.2"}, "settings": "layers unrolled", "threads": 2,
        },
        "median_s": seconds,
        "quartiles_s": [seconds * 0.98, seconds * 1.02],
        "peak_bytes": 3.25e9,
        "times_as_fast_as_jaxvalues": 2.2 / seconds,
        "times_the_memory_of_jaxvalues": 1.0,
        "warm": {"trace_s": 2.25, "compile_s": 1.25, "seconds": 5.5},
        "cold": {"compile_s": 8.5, "seconds": 13.5},
    }  # fmt: skip


def result() -> dict[str, Any]:
    contenders = {"jaxvalues": contender(2.2), "jaxvalues-gather": contender(4.4), "torch-eager": contender(3.3)}
    return {
        "config": "roberta-base",
        "tokens": "random, no padding",
        "machine": {"processor": "AMD EPYC", "cores": 2, "load_before": (0.5, 0.5, 0.5)},
        "generation": [],
        "cases": [
            {"work": "train", "shape": [16, 48], "contenders": contenders},
            {"work": "inference", "shape": [32, 128, 20, 7], "contenders": contenders},
        ],
    }


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_tables_fit(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    render(result(), console)
    lines = console.file.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert not any("…" in line for line in lines)
    text = " ".join(console.file.getvalue().split())
    assert "train, 16 × 48" in text
    assert "inference, 32 × (128 + 20 × 7)" in text
    rows = [line.split() for line in lines if "torch-eager" in line]
    assert sum("3.3" in row and "1.50" in row and "1.00" in row for row in rows) == 2
    assert sum("13.5" in row and "8.5" in row for row in rows) == 2
    assert ("3.23–3.37" in text) == (width >= 80)
