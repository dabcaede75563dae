"""Eight simulated devices: the same run on every mesh, and each weight and row where the table says."""

from __future__ import annotations

import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec as P

from jaxvalues.config import MeshConfig
from jaxvalues.data.batches import inputs_shape
from jaxvalues.errors import ConfigError
from jaxvalues.run.base import Base
from jaxvalues.run.state import initial_state, initial_weights
from jaxvalues.run.system import System, build_system
from jaxvalues.training import sharding
from jaxvalues.training.sharding import check_batch_size, make_mesh, partition, place_batch, place_on

pytestmark = pytest.mark.usefixtures("no_compile_cache")

MESHES = {
    "data 8": MeshConfig(),
    "data 2, fsdp 4": MeshConfig(data=2, fsdp=4),
    "data 2, tensor 4": MeshConfig(data=2, tensor=4),
    "data 2, fsdp 2, tensor 2": MeshConfig(data=2, fsdp=2, tensor=2),
}
STEPS = 4


LAYER = {"model": {"config": {**tiny.ROBERTA, "num_hidden_layers": 1}}}
DEBERTA = {
    **tiny.ROBERTA,
    "model_type": "deberta",
    "num_hidden_layers": 1,
    "type_vocab_size": 0,
    "relative_attention": True,
    "pos_att_type": "c2p|p2c",
    "position_biased_input": False,
}
MPNET = {**tiny.ROBERTA, "model_type": "mpnet", "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def losses_on_one_device(quick_compiles: None) -> list[float]:
    return tiny.Run(tiny.config(LAYER)).losses(STEPS)


@pytest.mark.main_cases("data 2, fsdp 2, tensor 2")
@pytest.mark.parametrize("name", MESHES)
def test_a_run_is_the_same_on_every_mesh(name: str, losses_on_one_device: list[float]) -> None:
    """With dropout: the masks too do not depend on where they are drawn."""
    run = tiny.Run(tiny.config(LAYER), make_mesh(MESHES[name]))
    losses = run.losses(STEPS)
    np.testing.assert_allclose(losses, losses_on_one_device, atol=1e-5)
    assert losses[-1] < losses[0] - 0.01  # it did train
    assert exchanged_activations(run.system) == []


def exchanged_activations(system: System) -> list[str]:
    """What the compiled training step gathers or, without `tensor`, sums over devices, of arrays [B, T, …], but for the
    gradient of the word vectors: rows of a batch, where the table's own would have thousands.

    Token ids, int32 [B, T, 1], may be gathered for that gradient: four bytes a token, and no activation. Floats of any
    shape [B, T, …], masks and random bits may not."""
    (compiled,) = system.train_step.compiled.values()
    kinds = "all-gather" if system.mesh.shape["tensor"] > 1 else "all-gather|all-reduce"
    found = re.findall(rf"= (?!s32\[\d+,\d+,1\])\w+\[\d+,\d+,\d.* (?:{kinds})\(.*", compiled.run.as_text())
    return [line for line in found if "embeddings/jit(_take)/scatter-add" not in line]


@pytest.mark.exhaustive
@pytest.mark.parametrize("network", [DEBERTA, MPNET], ids=["deberta", "mpnet"])
def test_networks_with_distances_are_the_same_on_a_mesh(network: dict[str, Any], quick_compiles: None) -> None:
    run = tiny.Run(tiny.config(LAYER))
    batch = next(run.batches.starting_at(0))
    norms = []
    for mesh in (None, make_mesh(MESHES["data 2, fsdp 2, tensor 2"])):
        system = tiny.system(tiny.config({"model": {"config": network}}), mesh)
        frozen, trainable = initial_weights(system, Base({}, None, "random"), 0)
        placed = place_batch(batch, system.mesh)
        state, metrics = system.train_step(
            inputs_shape(batch), initial_state(system, trainable), frozen, placed, run.hyper
        )
        norms.append((metrics["loss"], metrics["grad_norm"]))
    np.testing.assert_allclose(*norms, rtol=1e-5)
    assert exchanged_activations(system) == []
    attention = state.trainable["encoder"]["layers"]["0"]["attention"]
    for name in attention.keys() - {"output"} - ({"query", "key", "value"} if network is DEBERTA else set()):
        assert attention[name]["kernel"].sharding.spec == P("fsdp", "tensor"), name


@pytest.mark.slow
def test_weights_are_born_sharded_with_the_numbers_of_one_device() -> None:
    mesh = make_mesh(MESHES["data 2, fsdp 2, tensor 2"])
    _, params = initial_weights(tiny.system(tiny.config(LAYER), mesh), Base({}, None, "random"), 0)
    chex.assert_trees_all_equal(params, tiny.canonical_params(1))
    up = params["encoder"]["layers"]["0"]["mlp"]["up"]["kernel"]
    assert up.sharding.spec == P("fsdp", "tensor")
    assert {shard.data.shape for shard in up.addressable_shards} == {(32, 64)}


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("encoder/layers/3/attention/query/kernel", (64, 64), P("fsdp", "tensor")),
        ("encoder/layers/3/attention/query/bias", (64,), P("tensor")),
        ("encoder/layers/3/attention/in_proj/kernel", (64, 192), P("fsdp", "tensor")),
        ("encoder/layers/3/attention/relative_key/kernel", (64, 64), P("fsdp", "tensor")),
        ("encoder/layers/3/attention/relative_query/bias", (64,), P("tensor")),
        ("encoder/embeddings/relative/embedding", (512, 64), P("fsdp", None)),
        ("encoder/layers/3/attention/output/kernel", (64, 64), P("tensor", "fsdp")),
        ("encoder/layers/3/attention/output/bias", (64,), P(None)),  # too small to be worth a gather
        ("encoder/layers/3/mlp/up/kernel", (64, 128), P("fsdp", "tensor")),
        ("encoder/layers/3/mlp/down/kernel", (128, 64), P("tensor", "fsdp")),
        ("encoder/layers/3/mlp_norm/scale", (64,), P(None)),
        ("encoder/layers/0-3/mlp/up/kernel", (4, 64, 128), P(None, "fsdp", "tensor")),  # the layer axis stays whole
        ("encoder/layers/0-3/mlp/up/bias", (4, 128), P(None, "tensor")),
        ("optimizer/mu/encoder/layers/3/mlp/down/kernel", (128, 64), P("tensor", "fsdp")),
        ("encoder/embeddings/word/embedding", (600, 64), P("tensor", "fsdp")),
        (
            "encoder/embeddings/word/embedding",
            (601, 64),
            P(None, ("tensor", "fsdp")),
        ),  # words do not divide, their width does
        ("encoder/embeddings/word/embedding", (601, 63), P(None, None)),  # what does not divide stays whole
        ("encoder/layers/3/attention/qkv/kernel", (64, 192), P("fsdp", "tensor")),
        ("encoder/layers/0-3/attention/qkv/bias", (4, 192), P(None, "tensor")),
        ("encoder/embeddings/position/embedding", (67, 63), P(None, None)),
        ("decoder/layers/3/cross_attention/key/kernel", (64, 64), P("fsdp", "tensor")),
        ("decoder/layers/0-3/cross_attention/output/kernel", (4, 64, 64), P(None, "tensor", "fsdp")),
        ("decoder/layers/3/cross_attention_norm/scale", (64,), P(None)),
        ("decoder/layers/3/mlp/gate/kernel", (64, 128), P("fsdp", "tensor")),
        ("embeddings/word/embedding", (600, 64), P("tensor", "fsdp")),
        ("head/embedding", (600, 64), P("tensor", "fsdp")),
        ("head/kernel", (64, 20), P("fsdp", None)),
        ("step", (), P()),
    ],
)
def test_the_partition_of_a_weight(path: str, shape: tuple[int, ...], expected: P) -> None:
    assert partition(path, shape, make_mesh(MESHES["data 2, fsdp 2, tensor 2"])) == expected


def test_nothing_is_split_over_axes_of_one_device() -> None:
    assert partition("encoder/layers/3/mlp/up/kernel", (64, 128), make_mesh(MeshConfig())) == P(None, None)


def test_weights_and_rows_are_placed_shard_by_shard() -> None:
    mesh = make_mesh(MESHES["data 2, fsdp 2, tensor 2"])
    array = np.arange(64 * 128, dtype=np.float32).reshape(64, 128)
    placed = place_on(mesh)("encoder/layers/0/mlp/up/kernel", array)
    np.testing.assert_array_equal(placed, array)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(32, 64)}
    ids = np.arange(16).reshape(8, 2)
    batch = place_batch({"input_ids": ids, "attention_mask": ids, "weights": np.arange(8.0)}, mesh)
    np.testing.assert_array_equal(batch["input_ids"], ids)
    assert {shard.data.shape for shard in batch["input_ids"].addressable_shards} == {(2, 2)}
    assert {shard.data.shape for shard in batch["weights"].addressable_shards} == {(2,)}
    several = place_batch({"attention_mask": np.stack([ids] * 3), "weights": np.ones((3, 8))}, mesh)
    assert {shard.data.shape for shard in several["attention_mask"].addressable_shards} == {(3, 2, 2)}
    assert {shard.data.shape for shard in several["weights"].addressable_shards} == {(3, 2)}


def test_the_free_axis_takes_what_is_left() -> None:
    assert dict(make_mesh(MeshConfig(data=2, fsdp=-1)).shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert dict(make_mesh(MeshConfig(fsdp=2, tensor=2)).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"data": -1, "tensor": 3}, "sizes that are given, 3, does not divide the number of devices, 8"),
        ({"data": 3}, "needs 3 devices, but there are 8"),
        ({"data": 4, "fsdp": 4}, "needs 16 devices, but there are 8"),
    ],
)
def test_a_mesh_that_does_not_fit_is_an_error(sizes: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_mesh(MeshConfig(**sizes))


def test_batches_must_divide_over_the_mesh() -> None:
    mesh = make_mesh(MESHES["data 2, fsdp 2, tensor 2"])
    check_batch_size("training.batch_size", 12, mesh)
    with pytest.raises(ConfigError, match=r"batch_size: 6 rows per micro-batch do not split evenly over 4 devices"):
        check_batch_size("training.batch_size", 6, mesh)
    config = tiny.config({"training": {"accumulation": 8}})
    with pytest.raises(ConfigError, match=r"training.batch_size: 2 rows"):  # a micro-batch of the 16
        build_system(config, Base(config.model.config, None, "random"), tiny.tokenizer(), mesh)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_large_stack_is_written_layer_by_layer(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers in the same place as a small one, and no array of the whole stack on the host."""
    path, shape, mesh = "encoder/layers/0-2/mlp/up/kernel", (3, 64, 128), make_mesh(MESHES["data 2, fsdp 2, tensor 2"])
    layers = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    seen, original = [], place_on.__call__

    def look(self: place_on, path: str, array: np.ndarray) -> jax.Array:
        seen.append(array.shape)
        return original(self, path, array)

    monkeypatch.setattr(place_on, "__call__", look)
    small = place_on(mesh, lambda _: jnp.dtype(dtype)).stack(path, shape, iter(layers))
    assert seen == [shape]
    monkeypatch.setattr(sharding, "MOST_ON_HOST", 2 * small.nbytes // 3)
    large = place_on(mesh, lambda _: jnp.dtype(dtype)).stack(path, shape, iter(layers))
    assert seen == [shape]
    assert large.dtype == small.dtype == dtype
    assert large.sharding == small.sharding
    np.testing.assert_array_equal(large.astype(np.float32), small.astype(np.float32))
