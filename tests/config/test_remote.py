"""The section `model.remote`, and the endpoint that it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from remote_runs import config_file
from runs import command

from jaxvalues.config import Config, parse_config
from jaxvalues.errors import ConfigError


def config(parameters: dict[str, Any], url: str = "http://localhost:8000/v1") -> Config:
    return parse_config(
        {
            "model": {"endpoint": url, "id": "m", "remote": {"parameters": parameters}},
            "formulation": {"kind": "answer"},
            "tuning": {"method": "none"},
        }
    )


def test_parameters_are_as_they_are_sent() -> None:
    given = {"logit_bias": {2822: 5, "a": 5}, "stop": ("x", "y")}
    assert config(given).model.remote.parameters == {"logit_bias": {"2822": 5, "a": 5}, "stop": ["x", "y"]}


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, {(1, 2): 3}])
def test_parameters_that_are_no_json(value: Any) -> None:
    with pytest.raises(ConfigError, match="must hold texts, numbers, lists and mappings alone"):
        config({"x": value})


def test_a_slash_behind_an_endpoint_names_the_same_one() -> None:
    assert config({}, "http://localhost:8000/v1/").model.endpoint == "http://localhost:8000/v1"
    assert config({}, "http://localhost:8000//").model.endpoint == "http://localhost:8000"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("model.endpoint=localhost:8000", "`endpoint` is not a URL such as http://localhost:8000/v1"),
        ("model.endpoint=http://me:secret@host/v1", "the key belongs into the environment variable OPENAI_API_KEY"),
        ("model.id=null", "`endpoint` needs `id`"),
        ("tuning.method=full", "tuning.method: full trains, and nothing trains at model.endpoint"),
        ("formulation.kind=classify", "formulation.kind: classify needs a network here"),
        ("formulation.verbalizer.soft=true", "formulation.verbalizer.soft trains"),
        ("model.max_cost=3", "`max_cost` needs remote.input_price"),
        ("model.remote.input_price=3", "give both `input_price` and `output_price`"),
        ("model.remote.samples=3", "`samples` and `temperature` belong to scoring: votes"),
        ("model.remote.parameters={seed: 3}", "`parameters` cannot set seed"),
        (
            "formulation={chat: true, stem: So, kind: answer}",
            "formulation.stem cannot be used with model.endpoint: remove it",
        ),
        ("model.endpoint=null", "`id` belongs to `endpoint`"),
        ("runtime.distributed=true", "one process asks model.endpoint"),
    ],
)
def test_bad_configs(tmp_path: Path, change: str, sentence: str) -> None:
    code, _, err = command("train", config_file(tmp_path, "http://localhost:1/v1"), change)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert len(err) < 320
