"""The batches of a run: one meaning of batch_size, and what devices and micro-batches cannot share."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tiny
from rich.console import Console

from jaxvalues.config import MeshConfig
from jaxvalues.data.training_batches import TrainingBatches
from jaxvalues.errors import ConfigError
from jaxvalues.run.batches import training_batches
from jaxvalues.run.console import RunConsole
from jaxvalues.run.system import check_step_rows
from jaxvalues.training.sharding import make_mesh

KINDS = {"gpt2": "answer", "t5": "answer", "roberta": "masked_choice"}
QUIET = RunConsole(Console(file=io.StringIO()))


def batches(network: str, training: dict[str, Any], mesh: Any = None, **data: Any) -> TrainingBatches:
    one = tiny.question_config(KINDS[network], network, {"training": training, "data": data})
    return training_batches(tiny.system(one, mesh), tiny.split(), QUIET)


@pytest.mark.parametrize(
    ("training", "data", "said"),
    [
        ({"batch_size": 8}, {}, "8 arguments with 160 questions"),
        ({"batch_size": 8}, {"negatives": 1.0}, "8 arguments with 43.7 questions on average"),
        ({"questions_per_step": 8}, {}, "8 questions, as many as 0.4 arguments have on average"),
    ],
)
def test_every_network_makes_the_same_updates(training: dict[str, Any], data: dict[str, Any], said: str) -> None:
    sizes = {network: batches(network, training, **data).size for network in KINDS}
    assert len(set(sizes.values())) == 1
    assert str(sizes["t5"]) == said
    assert sizes["t5"].steps == (575 if "questions_per_step" in training else 29)


def test_rows_follow_from_the_network() -> None:
    assert [batches(network, {"batch_size": 8}).rows for network in KINDS] == [8, 160, 160]
    assert [batches(network, {"questions_per_step": 8}).rows for network in KINDS] == [8, 8, 8]


def test_what_devices_and_micro_batches_cannot_share_is_refused() -> None:
    eight = make_mesh(MeshConfig())
    assert batches("t5", {"batch_size": 2}, eight).rows == 40
    assert batches("t5", {"batch_size": 1, "accumulation": 20}).rows == 20
    for network, training, said in (
        ("t5", {"batch_size": 3}, "training.batch_size: 60 rows per micro-batch do not split evenly over 8 devices"),
        (
            "gpt2",
            {"questions_per_step": 12},
            "training.questions_per_step: 12 rows per micro-batch do not split evenly",
        ),
        (
            "gpt2",
            {"batch_size": 2, "accumulation": 4},
            "training.accumulation: 4 micro-batches do not divide the 2 rows",
        ),
    ):
        with pytest.raises(ConfigError) as error:
            batches(network, training, eight)
        assert said in str(error.value)
    drawn = batches("t5", {"batch_size": 8}, eight, negatives=0.5)
    assert drawn.rows % 8 == 0
    check_step_rows(tiny.config(), 160, eight)


def test_negatives_need_a_positive() -> None:
    one = tiny.question_config("answer", "gpt2", {"data": {"negatives": 1.0}})
    split = tiny.split()
    none = type(split)(split.name, split.arguments, np.zeros_like(split.labels))
    with pytest.raises(ConfigError, match=r"data\.negatives draws questions for each positive label, and training has"):
        training_batches(tiny.system(one), none, QUIET)
