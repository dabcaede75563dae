"""What `jaxvalues bench` says while it measures, and what it keeps when it fails. Contenders are stand-ins."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_bench import tiny

from jaxvalues.bench import measure
from jaxvalues.bench.measure import Options, bench
from jaxvalues.bench.task import Task
from jaxvalues.errors import UserError


class StandIn:
    """A worker whose steps take no time; in inference its process dies."""

    def __init__(self, name: str, task: Task) -> None:
        self.task = task

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: object) -> None: ...

    def describe(self) -> dict[str, Any]:
        return {"platform": "cpu", "dtype": "float32"}

    def first(self) -> dict[str, Any]:
        if self.task.work == "inference":
            raise UserError("torch-eager stopped with exit code -9: no message")
        return {"seconds": 12.34}

    def run(self, count: int) -> float:
        return 0.5

    def peak_bytes(self) -> int:
        return 1


def test_what_was_measured_before_a_contender_died_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure, "Worker", StandIn)
    said, file = io.StringIO(), tmp_path / "bench.json"
    with pytest.raises(UserError, match="exit code -9"):
        bench(tiny(), Options(peers=("none",), repeats=2), Console(file=said, width=120), file)
    (case,) = json.loads(file.read_text())["cases"]
    assert (case["work"], case["contenders"]["jaxvalues"]["median_s"]) == ("train", 0.5)
    assert said.getvalue().splitlines() == [
        "train, 8 × 16 tokens: jaxvalues, nothing in the compile cache: first step 12.3 s",
        "train, 8 × 16 tokens: jaxvalues, compiled before: first step 12.3 s",
        "train, 8 × 16 tokens: measured",
    ]
