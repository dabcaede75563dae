"""The memory of a training step, as the compiler says."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
from runs import ROOT

from jaxvalues import step_memory
from jaxvalues.config import Config
from jaxvalues.errors import ConfigError

pytestmark = pytest.mark.usefixtures("quick_compiles")


def wide(layers: int, **changes: Any) -> Config:
    """A network with most of its weights in its layers."""
    config = {**tiny.ROBERTA, "num_hidden_layers": layers, "intermediate_size": 8192}
    model = {"config": config, "tokenizer": None, "train_tokenizer": {"vocab_size": 400}}
    return tiny.config({"model": model, "data": {"max_length": 16, "buckets": [16]}}, changes)


def per_layer(mesh: dict[str, int]) -> dict[str, float]:
    """What one more layer adds to a step, on each device."""
    few, many = (step_memory(wide(layers, mesh=mesh, training={"batch_size": 8})) for layers in (2, 6))
    return {key: (many[key] - few[key]) / 4 for key in few}


@pytest.mark.exhaustive
def test_fsdp_gathers_one_layer_at_a_time() -> None:
    """Weights of one layer: 64 × 8192 × 2 and four of 64 × 64; with both moments three times that."""
    layer = 4 * (2 * 64 * 8192 + 4 * 64 * 64)
    whole, split = per_layer({"data": 8}), per_layer({"data": 1, "fsdp": 8})
    assert whole["arguments"] == pytest.approx(3 * layer, rel=0.05)
    assert split["arguments"] == pytest.approx(3 * layer / 8, rel=0.25)
    assert whole["temporaries"] > layer  # gradients
    assert split["temporaries"] < 0.5 * layer  # gradients / 8 and activations; a gathered layer would add `layer`


@pytest.mark.slow
@pytest.mark.main_cases("False")
@pytest.mark.parametrize("remat", [False, True])
def test_the_weights_of_all_layers_are_never_whole_at_once(remat: bool) -> None:
    """12 layers of 3.1 MB: those of one layer, their gradient, and what is split over 8 devices."""
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 12}
    model = {**wide(1).model.model_dump(), "config": {**tiny.ROBERTA, **sizes}, "remat": remat}
    mesh = {"data": 1, "fsdp": 8}
    memory = step_memory(wide(1, model=model, mesh=mesh, training={"batch_size": 8}))
    assert memory["temporaries"] < 0.5 * 4 * 12 * (4 * 256 * 256 + 2 * 256 * 1024)


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", ["prompt", "lora"])
def test_t5_11b_fits_eight_devices_of_16_gb(method: str) -> None:
    memory = step_memory(ROOT / "configs/bench/t5-11b-prompt.yaml", [f"tuning.method={method}", "model.remat=true"])
    assert sum(memory.values()) < 0.7 * 16e9  # the rest is for the runtime


def test_what_is_frozen_has_no_moments() -> None:
    config = wide(2, mesh={"data": 1, "fsdp": 8}, training={"batch_size": 8})
    full = step_memory(config)
    frozen = step_memory(config, ["tuning.method=bitfit"])
    assert frozen["arguments"] < 0.4 * full["arguments"]


def test_a_step_that_is_none_is_refused() -> None:
    config = tiny.question_config("answer", "t5", {"tuning": {"method": "none"}})
    model = config.model.model_copy(update={"tokenizer": None, "train_tokenizer": wide(1).model.train_tokenizer})
    with pytest.raises(ConfigError, match=r"tuning\.method none trains nothing"):
        step_memory(config.model_copy(update={"model": model}))


@pytest.mark.exhaustive
def test_lora_on_every_matrix_takes_less_than_full_tuning() -> None:
    """It acts beside the matrices, and makes none of their size."""
    targets = ["query", "key", "value", "output", "up", "down"]
    full, lora = (
        step_memory(wide(4, mesh={"data": 8}, training={"batch_size": 8}, tuning=tuning))["temporaries"]
        for tuning in ({"method": "full"}, {"method": "lora", "rank": 4, "targets": targets})
    )
    assert lora < 0.5 * full
