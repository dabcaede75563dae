"""The dense layer of all networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvalues.models.layers.config import TransformerConfig
from jaxvalues.models.layers.initializers import normal
from jaxvalues.models.layers.ops import dropout
from jaxvalues.models.layers.products import times_matrix
from jaxvalues.models.layers.stand_ins import with_whole

BESIDE = frozenset({"low_rank", "input_scale", "output_scale"})
"""The keys of what may act beside a kernel."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BranchDropout:
    """Dropout of what enters a branch of low rank: a key, or one for each layer of a stack, and the rate."""

    key: jax.Array
    rate: float = field(metadata={"static": True})


class Dense(nn.Module):
    """x [..., D] times a `kernel` [D, F], plus a `bias` [F]: [..., F] in `dtype`.

    Beside the kernel there may be, in the parameters alone: `input_scale` [D] and `output_scale` [F], which multiply
    input and output, and a branch of low rank, `low_rank/a` [D, R] and `low_rank/b` [R, F], whose product with x is
    added; `low_rank/dropout` drops entries of its input. No matrix of the size of the kernel is made for them;
    `with_merged_kernel` makes the one that does the same.

    Sums are float32 whatever `dtype` is (see `layers.products`). Parameters and initial values are those of flax's
    module of this name.
    """

    features: int
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x = x.astype(self.dtype)
        if (scale := self._beside("input_scale")) is not None:
            x = (x * scale).astype(self.dtype)
        y = times_matrix(x, kernel)
        if (branch := self._beside("low_rank")) is not None:
            drop = branch.get("dropout")
            read = x if drop is None else dropout(x, drop.rate, drop.key)
            y += times_matrix(times_matrix(read, branch["a"]).astype(self.dtype), branch["b"])
        y = y if bias is None else y + bias
        if (scale := self._beside("output_scale")) is not None:
            y *= scale
        return y.astype(self.dtype)

    def drops(self) -> bool:
        """Whether there is dropout in the branch, so that no kernel does the same."""
        return "dropout" in (self._beside("low_rank") or {})

    def with_merged_kernel(self, function: Callable[..., jax.Array], *args: jax.Array) -> jax.Array:
        """`function(kernel, *args)` of the kernel [D, F] in `dtype` with what acts beside it, but for scales of a
        bias."""

        def merged(params: Any, *args: jax.Array) -> jax.Array:
            return function(merge_beside(params)["kernel"].astype(self.dtype), *args)

        params = self.variables["params"]
        return with_whole(merged, {key: params[key] for key in params if key != "bias"}, *args)

    def _beside(self, name: str) -> Any:
        return self.get_variable("params", name) if self.has_variable("params", name) else None


def merge_beside(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a dense layer with what acts beside the kernel merged into kernel and bias.

    Leaves may be stacked on leading axes.
    """
    kernel, bias = params["kernel"], params.get("bias")
    if (branch := params.get("low_rank")) is not None:
        kernel = kernel + jnp.matmul(branch["a"], branch["b"])
    if (scale := params.get("input_scale")) is not None:
        kernel = kernel * scale[..., :, None]
    if (scale := params.get("output_scale")) is not None:
        kernel = kernel * scale[..., None, :]
        bias = None if bias is None else bias * scale
    return {"kernel": kernel} | ({} if bias is None else {"bias": bias})


def normal_dense(
    config: TransformerConfig, features: int, dtype: jnp.dtype, name: str, *, use_bias: bool = True
) -> Dense:
    """A dense layer to `features`; its kernel starts normal with the config's `initializer_range`."""
    return Dense(features, use_bias, dtype, normal(config.initializer_range), name=name)
