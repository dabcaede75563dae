"""Matrices in 8 or 4 bits: close to the whole ones, forward and backward, and the same in every form of the layers."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxvalues.config import parse_config
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.models.layers import quantized
from jaxvalues.models.layers.dense import Dense
from jaxvalues.models.layers.products import times_matrix
from jaxvalues.models.layers.quantized import GROUP, QuantizedWeight, quantize

pytest.importorskip("qwix")


def matrix(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(sum(shape)), shape)


@pytest.mark.parametrize(("how", "largest", "rows"), [("int8", 127, 1), ("int4", 7, 64 // GROUP)])
def test_a_number_is_off_by_half_a_step_at_most(how: str, largest: int, rows: int) -> None:
    """A step is the largest number of a column, or of its group of rows, over the largest whole number."""
    whole = matrix(3, 64, 16)
    kept = quantize(whole, how)
    assert kept.shape == whole.shape
    assert kept.array.qvalue.dtype == how
    assert kept.array.scale.shape == (3, rows, 16)
    steps = np.abs(np.asarray(whole)).reshape(3, rows, -1, 16).max(axis=2) / largest
    error = np.abs(np.asarray(kept.whole() - whole)).reshape(3, rows, -1, 16)
    assert (error <= 0.501 * steps[:, :, None]).all()


def test_rows_that_do_not_divide_have_one_scale() -> None:
    assert quantize(matrix(GROUP + 1, 8), "int4").array.scale.shape == (1, 8)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("over", [0, 1])
def test_products_and_their_gradients_are_those_of_the_rounded_matrix(dtype: str, over: int) -> None:
    kept = quantize(matrix(32, 32), "int8")
    x = matrix(2, 5, 32).astype(dtype)

    def both(weight: jax.Array | QuantizedWeight) -> tuple[jax.Array, jax.Array]:
        return jax.value_and_grad(lambda x: jnp.sin(times_matrix(x, weight, over=over)).sum())(x)

    chex.assert_trees_all_close(jax.jit(both)(kept), both(kept.whole()), rtol=1e-5, atol=1e-5)


def test_the_backward_pass_keeps_few_bits() -> None:
    """Of the matrix; the whole one is made again."""
    kept = quantize(matrix(64, 128), "int8")
    _, pull = jax.vjp(lambda x: times_matrix(x, kept), matrix(2, 3, 64))
    assert {leaf.dtype for leaf in jax.tree.leaves(pull) if leaf.shape == (64, 128)} == {jnp.dtype(jnp.int8)}


def test_a_merged_kernel_is_made_of_the_whole_matrix() -> None:
    kept, dense = quantize(matrix(8, 4), "int8"), Dense(4, use_bias=False)
    params = {"kernel": kept, "output_scale": jnp.arange(4.0)}
    merged = dense.apply({"params": params}, method=lambda self: self.with_merged_kernel(lambda kernel: kernel * 2))
    np.testing.assert_allclose(merged, kept.whole() * jnp.arange(4.0) * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuning": {"method": "full"}}, "tuning.method: full trains all of them"),
        ({"tuning": {"method": "lora"}, "mesh": {"fsdp": 2}}, "leave mesh.fsdp and mesh.tensor 1"),
    ],
)
def test_what_cannot_be_in_few_bits_is_refused(changes: dict, message: str) -> None:
    model = {"config": tiny.ROBERTA, "train_tokenizer": {}, "quantization": "int8"}
    with pytest.raises(ConfigError, match=message):
        parse_config({"model": model, **changes})


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "qwix", None)
    with pytest.raises(UserError, match=r"pip install 'jaxvalues\[quantization\]'"):
        quantized.require_qwix()
