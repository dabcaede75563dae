"""Sharding: one mesh with axes data, fsdp and tensor, and one ordered table from parameter paths to partitions.

Rows of a batch are split over data × fsdp. The table names the dimension of a weight that `tensor` splits, as in
Megatron: columns of the first matrix of a block, rows of the second. `fsdp` then splits the largest remaining dimension
that it divides. `fsdp` splits what is stored between steps, weights and moments. A step gathers the weights of one
layer at a time to compute with them, and again in the backward pass (`gather_weights`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jaxvalues.config import MeshConfig
from jaxvalues.data.batches import Batch
from jaxvalues.errors import ConfigError
from jaxvalues.models.checkpoints.place import Place
from jaxvalues.models.layers.sharded import Placement, ShardedWeight, gathered
from jaxvalues.training.processes import array_from_main

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")  # the axes that split the rows of a batch

# (path pattern, dimensions that `tensor` may split, counted from the end: the first that it divides). The first match
# decides; without one, none.
TENSOR_RULES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"/(cross_)?attention/(query|key|value|relative_query|relative_key)/(kernel|bias)$", (-1,)),
    (r"/attention/in_proj/kernel$", (-1,)),  # DeBERTa v1: query, key and value of a head are adjacent columns
    (r"/attention/qkv/(kernel|bias)$", (-1,)),  # GPT-2: all queries, all keys, all values, as in its files
    (r"/mlp/(gate|up)/(kernel|bias)$", (-1,)),
    (r"/(cross_)?attention/output/kernel$", (-2,)),
    (r"/mlp/down/kernel$", (-2,)),
    (r"/(embeddings/word|head)/embedding$", (-2, -1)),  # words, or else, of a vocabulary that it does not divide, width
)

MOST_ON_HOST = 2**28
"""The bytes up to which a stack of layers is put together on the host, which needs no program to compile."""

_GATHERED_IN_LAYERS = re.compile(r"(^|/)layers/.*/(kernel|low_rank/[ab])$")
"""The matrices of dense layers, which are only multiplied with (`models.layers.dense`)."""


def make_mesh(config: MeshConfig) -> Mesh:
    """The device mesh. Raises ConfigError if the product of the sizes is not the number of devices."""
    sizes, devices = [config.data, config.fsdp, config.tensor], jax.device_count()
    if -1 in sizes and devices % _taken(sizes):
        raise ConfigError(
            f"mesh {_describe(sizes)}: the product of the sizes that are given, {_taken(sizes)}, does not divide the "
            f"number of devices, {devices}"
        )
    sizes = _filled(sizes)
    if math.prod(sizes) != devices:
        raise ConfigError(f"mesh {_describe(sizes)} needs {math.prod(sizes)} devices, but there are {devices}")
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def abstract_mesh(config: MeshConfig) -> AbstractMesh:
    """A mesh without devices, which may have more of them than there are here. A free axis has at least one."""
    return AbstractMesh(tuple(_filled([config.data, config.fsdp, config.tensor])), AXES)


def _filled(sizes: Sequence[int]) -> list[int]:
    """The sizes of the axes; a free one, -1, takes the devices here that the others leave."""
    return [max(1, jax.device_count() // _taken(sizes)) if size == -1 else size for size in sizes]


def _taken(sizes: Sequence[int]) -> int:
    """The number of devices of the axes that are not free."""
    return math.prod(size for size in sizes if size != -1)


def _describe(sizes: Sequence[int]) -> str:
    return ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))


def single_mesh() -> Mesh:
    """A mesh of one device of this process, for example to read a run and export it."""
    return jax.make_mesh(
        (1,) * len(AXES), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=jax.local_devices()[:1]
    )


def row_shards(mesh: Mesh) -> int:
    """The number of devices that the rows of a batch are split over."""
    return math.prod(mesh.shape[axis] for axis in ROWS)


def check_batch_size(key: str, rows: int, mesh: Mesh) -> None:
    """Raise ConfigError, naming the config `key`, unless the `rows` of a micro-batch split evenly over the mesh."""
    if rows % row_shards(mesh):
        raise ConfigError(f"{key}: {rows} rows per micro-batch do not split evenly over {row_shards(mesh)} devices")


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def partition(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """The partition of the parameter at `path`, of this shape."""
    axes: list[str | tuple[str, ...] | None] = [None] * len(shape)
    stacked = re.search(r"layers/\d+-\d+/", path) is not None
    tensor, fsdp = mesh.shape["tensor"], mesh.shape["fsdp"]
    dims = next((dims for pattern, dims in TENSOR_RULES if re.search(pattern, "/" + path)), ())
    split = next((len(shape) + dim for dim in dims if shape[dim] % tensor == 0), None) if tensor > 1 else None
    if split is not None:
        axes[split] = "tensor"
    if fsdp > 1 and len(shape) - stacked > 1:  # splitting a bias saves nothing and costs a gather
        # The layer axis of a stack stays whole: scan takes one layer at a time.
        free = [d for d in range(stacked, len(shape)) if d != split and shape[d] % fsdp == 0]
        if free:
            axes[max(free, key=lambda d: shape[d])] = "fsdp"
        elif split is not None and shape[split] % (tensor * fsdp) == 0:
            axes[split] = ("tensor", "fsdp")
    return PartitionSpec(*axes)


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """NamedShardings for a tree of (abstract) arrays: parameters, some of them, optimizer moments, or a whole state.

    The table matches the end of a path, which is the same for a weight and for its moments.
    """

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, partition(name, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def gather_weights(params: Any, mesh: Mesh) -> Any:
    """The parameters to compute with: those in layers are gathered over `fsdp` layer by layer, where they are used (see
    `models.layers.sharded`), all others at once. Gradients are split again. Call it inside jit.
    """
    if mesh.shape["fsdp"] == 1:
        return params

    def prepare(path: Any, kept: NamedSharding, weight: jax.Array) -> Any:
        if all(axis not in ("fsdp", ("tensor", "fsdp")) for axis in kept.spec):
            return weight
        in_layers = _GATHERED_IN_LAYERS.search(jax.tree_util.keystr(path, simple=True, separator="/"))
        spec = kept.spec[-2:] if in_layers else kept.spec  # one layer of a stack is taken before it is gathered
        used = ({"fsdp": None, ("tensor", "fsdp"): "tensor"}.get(axis, axis) for axis in spec)
        placement = Placement(NamedSharding(mesh, PartitionSpec(*spec)), NamedSharding(mesh, PartitionSpec(*used)))
        sharded = ShardedWeight(weight, placement)
        return sharded if in_layers else gathered(sharded)

    return jax.tree_util.tree_map_with_path(prepare, tree_shardings(params, mesh), params)


@dataclass(frozen=True)
class place_on(Place):
    """The `Place` that shards each weight over `mesh` as it is read, by process 0 for all that `mesh` spans.

    `dtype(path)` is the dtype in which a weight is placed, `form(path, array)` what stands for it in the tree. The host
    holds one tensor at a time: a stack of layers that is larger than `MOST_ON_HOST` is written on the devices layer by
    layer.
    """

    mesh: Mesh
    dtype: Callable[[str], np.dtype] = lambda _: np.dtype(np.float32)
    form: Callable[[str, jax.Array], Any] = lambda _, array: array

    def dtype_of(self, path: str) -> np.dtype:
        return self.dtype(path)

    def read(self, tensor: Any) -> np.ndarray:
        if not self.mesh.is_multi_process:
            return super().read(tensor)
        return array_from_main("reading the weights", tuple(tensor.shape), lambda: Place.read(self, tensor))

    def __call__(self, path: str, array: np.ndarray) -> Any:
        return self.form(path, place(array, NamedSharding(self.mesh, partition(path, array.shape, self.mesh))))

    def stack(self, path: str, shape: tuple[int, ...], layers: Iterable[np.ndarray]) -> Any:
        dtype = self.dtype_of(path)
        if math.prod(shape) * dtype.itemsize <= MOST_ON_HOST:
            return super().stack(path, shape, layers)
        spec = partition(path, shape, self.mesh)
        whole, one = (NamedSharding(self.mesh, PartitionSpec(*axes)) for axes in (spec, spec[1:]))
        stacked = jax.jit(partial(jnp.zeros, shape, dtype), out_shardings=whole)()
        write = jax.jit(jax.lax.dynamic_update_index_in_dim, static_argnums=3, donate_argnums=0, out_shardings=whole)
        for i, layer in enumerate(layers):
            # Waiting keeps the layers that are on their way from piling up.
            stacked = jax.block_until_ready(write(stacked, place(layer.astype(dtype, copy=False), one), i, 0))
        return self.form(path, stacked)


def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A device array from the same host array on every process. Each device receives only its part."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def batch_sharding(batch: Batch, mesh: Mesh) -> NamedSharding:
    """Where the arrays of a batch are: each device has its rows. A leading axis [R], of several runs, stays whole."""
    leading = batch["attention_mask"].ndim - 2
    return NamedSharding(mesh, PartitionSpec(*[None] * leading, ROWS))


def place_batch(batch: Batch, mesh: Mesh) -> dict[str, jax.Array]:
    """The global batch, from the same host batch on every process. Each device receives only its rows."""
    sharding = batch_sharding(batch, mesh)
    return {name: place(array, sharding) for name, array in batch.items()}
