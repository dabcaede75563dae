"""Estimates beside what is there: the bytes that a run keeps on each device between steps."""

from __future__ import annotations

from typing import Any

import jax
import pytest
import tiny

from jaxvalues.config import MeshConfig
from jaxvalues.run.base import Base
from jaxvalues.run.estimate import kept_bytes, work
from jaxvalues.run.held import hold_frozen
from jaxvalues.run.network import build_network
from jaxvalues.run.state import initial_state, initial_weights
from jaxvalues.training.sharding import abstract_mesh, make_mesh


def on_the_first_device(tree: Any) -> int:
    """The bytes of the parts of arrays that lie on the first device."""
    first = jax.devices()[0]
    arrays = [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim]  # not Adam's count of steps
    shards = (shard for leaf in arrays for shard in leaf.addressable_shards if shard.device == first)
    return sum(shard.data.nbytes for shard in shards)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mesh", [MeshConfig(data=2, fsdp=4), MeshConfig(data=2, fsdp=2, tensor=2)], ids=str)
def test_what_is_kept_on_a_device_is_counted_exactly(mesh: MeshConfig, dtype: str) -> None:
    config = tiny.config({"tuning": {"method": "last_layers", "layers": 1}, "model": {"dtype": dtype}})
    system = tiny.system(config, make_mesh(mesh))
    weights = hold_frozen(system, initial_weights(system, Base({}, None, "random"), 0))
    state = initial_state(system, weights.trainable)
    gradients = on_the_first_device(weights.trainable)
    kept = on_the_first_device((weights.frozen, state.trainable, state.optimizer)) + gradients
    assert kept_bytes(system.network, abstract_mesh(mesh)) == kept_bytes(system.network, system.mesh) == kept


def test_a_mesh_may_be_larger_than_there_are_devices() -> None:
    mesh = abstract_mesh(MeshConfig(fsdp=64))
    assert dict(mesh.shape) == {"data": 1, "fsdp": 64, "tensor": 1}
    assert dict(abstract_mesh(MeshConfig()).shape) == {"data": 8, "fsdp": 1, "tensor": 1}


def test_t5_11b_with_a_frozen_network_fits_eight_devices_of_16_gb_between_steps() -> None:
    """d_ff 65,536 and 128 heads: 11.3 thousand million parameters, of which a prompt trains a few."""
    t5 = {
        "model_type": "t5", "vocab_size": 32128, "d_model": 1024, "d_kv": 128, "d_ff": 65536, "num_layers": 24,
        "num_heads": 128,
    }  # fmt: skip
    for method, more in (("prompt", {}), ("lora", {"rank": 8})):
        config = tiny.question_config("answer", "t5", {"tuning": {"method": method, **more}})
        model = config.model.model_copy(update={"config": t5, "dtype": "bfloat16", "scan": True})
        network = build_network(config.model_copy(update={"model": model}), t5)
        each = kept_bytes(network, abstract_mesh(MeshConfig(fsdp=8)))
        assert 2.8e9 < each < 3.2e9


def test_frozen_weights_need_half_of_the_backward_pass_and_prompts_lengthen_rows() -> None:
    def step(**tuning: Any) -> float:
        config = tiny.config({"tuning": tuning})
        return work(tiny.system(config).network, config, 16, 8)[0]

    full, lora, prompt = step(method="full"), step(method="lora"), step(method="prompt", length=16)
    assert full / 2 < lora < full
    assert 2 * lora < prompt < 4 * lora  # twice the tokens, and attention grows with their square
    assert 3 * step(method="none") == pytest.approx(full)  # forward alone
