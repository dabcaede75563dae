"""What `jaxvalues bench` measures, says meanwhile, and keeps when it fails. Contenders are stand-ins."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from test_bench import GPT2, question_config, tiny

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


def test_the_fastest_way_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the micro-batches that are tried, the one that took least."""
    seconds = {1: 3.0, 4: 1.0, 20: 2.0}

    class Timed(StandIn):
        def run(self, count: int) -> float:
            return seconds[self.task.config["training"]["accumulation"]]

    monkeypatch.setattr(measure, "Worker", Timed)
    task = Task("train", question_config().model_dump(mode="json"), GPT2, "", "", "", "", "")
    task = measure.write(task, "jaxvalues-apart", {"input_ids": np.zeros((160, 9))}, str(tmp_path))
    assert np.load(task.batch)["input_ids"].shape == (160, 9)
    variants = measure.micro_batch_variants(task, (1, 3, 4, 20))
    assert [way.config["training"]["accumulation"] for way in variants] == [
        1,
        4,
        20,
    ]  # 160 rows do not divide by 3
    best = measure.fastest("jaxvalues-apart", variants, tmp_path).config["training"]
    assert (best["batch_size"], best["accumulation"], best["eval_batch_size"]) == (160, 4, 40)
