"""LoRA (Hu et al., 2022): low-rank updates of some of the network's matrices."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvalues.models.layers.dense import BranchDropout
from jaxvalues.models.layers.layout import layer_range
from jaxvalues.models.model_types import LLAMA
from jaxvalues.tuning.method import AdditiveMethod, Bound, Params
from jaxvalues.tuning.networks import uniform_fan_in
from jaxvalues.tuning.targets import BERT_LIKE, default_targets, is_stacked, target_layers

# PEFT's defaults (TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING). PEFT has none for mpnet,
# which takes those of roberta. T5's are in all its attention blocks.
DEFAULTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*BERT_LIKE, "deberta-v2", "t5"), ("query", "value")),
    "deberta": ("in_proj",),
    "gpt2": ("qkv",),
    **dict.fromkeys(LLAMA, ("query", "value")),
}


@dataclass(frozen=True)
class LoRA(AdditiveMethod):
    """LoRA: W + (alpha / rank) a b for each matrix W [in, out] of the dense layers in `targets` (None: `DEFAULTS`).

    The trainable tree is {"lora": {path of the layer: {"a": [in, rank], "b": [rank, out]}}} besides the new parameters,
    with a leading axis in a stacked segment. A matrix has rank · (in + out) parameters. b starts at 0, so the initial
    network is unchanged. a has PEFT's initial distribution. Its random numbers do not depend on the grouping of layers.

    While training, x a b is computed beside x W, in the dense layer: no matrix of the size of W is made, but for keys
    and values of T5's cross-attention where one query attends (`attend_to_states`). `merge` makes all, for an export.
    Entries of x are then dropped at the rate `dropout` before a, for each dense layer anew (PEFT's lora_dropout).
    """

    key: ClassVar[str] = "lora"
    rank: int
    alpha: float
    targets: tuple[str, ...] | None = None
    dropout: float = 0.0

    def init_added(self, rng: jax.Array, params: Params) -> Params:
        names = self.targets or default_targets(self.target.model_type, DEFAULTS, "lora")
        kernels = target_layers(params, names)
        keys, added = _keys(rng, kernels), {}
        for path, kernel in kernels.items():
            *stack, fan_in, fan_out = kernel.shape
            added[f"{path}/a"] = self._draw(keys[path], fan_in)
            added[f"{path}/b"] = jnp.zeros((*stack, self.rank, fan_out))
        return unflatten_dict(added, sep="/")

    def bind_added(self, params: Params, added: Params) -> Bound:
        flat = flatten_dict(params, sep="/")
        for name, matrix in flatten_dict(added, sep="/").items():
            path, _, side = name.rpartition("/")
            flat[f"{path}/low_rank/{side}"] = matrix * (self.alpha / self.rank) if side == "b" else matrix
        return Bound(unflatten_dict(flat, sep="/"))

    def with_dropout(self, bound: Bound, key: jax.Array) -> Bound:
        if self.dropout == 0.0:
            return bound
        flat, end = flatten_dict(bound.params, sep="/"), "/low_rank/a"
        for path, one in _keys(key, [name.removesuffix(end) for name in flat if name.endswith(end)]).items():
            flat[f"{path}/low_rank/dropout"] = BranchDropout(one, self.dropout)
        return bound._replace(params=unflatten_dict(flat, sep="/"))

    def _draw(self, keys: jax.Array, fan_in: int) -> jax.Array:
        """The initial a of one layer, or of all layers of a stacked segment."""

        def draw(key: jax.Array) -> jax.Array:
            return uniform_fan_in(key, (fan_in, self.rank), fan_in)

        return jax.vmap(draw)(keys) if keys.ndim else draw(keys)


def _keys(rng: jax.Array, paths: Iterable[str]) -> dict[str, jax.Array]:
    """{path of a dense layer: its key, or [n] in a segment of n stacked layers}, however the layers are grouped."""
    places = {path: re.sub(r"(^|/)layers/[^/]+/", r"\1layers/", path) for path in paths}
    index = {place: i for i, place in enumerate(sorted(set(places.values())))}
    found = {}
    for path, place in places.items():
        key, layers = jax.random.fold_in(rng, index[place]), layer_range(path)
        if layers is not None:
            keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(layers[0], layers[1] + 1))
            key = keys if is_stacked(path) else keys[0]
        found[path] = key
    return found
