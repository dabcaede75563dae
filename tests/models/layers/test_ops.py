"""Dropout and activations on their own."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32

from jaxvalues.errors import UserError
from jaxvalues.models.layers import ops

pytestmark = pytest.mark.usefixtures("no_compile_cache")


@pytest.fixture(params=["cpu", "gpu"])
def backend(request, monkeypatch):
    """Each way to draw, whatever this machine has."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(40, 50, 20), (201, 33)])  # an odd size too
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_zeroes_at_its_rate_and_keeps_the_mean(shape, rate, backend):
    x = jnp.ones(shape)
    y = np.asarray(ops.dropout(x, rate, jax.random.key(0)))
    n = y.size
    assert np.unique(y).size == 2
    assert abs((y == 0).mean() - rate) < 4 * (rate * (1 - rate) / n) ** 0.5 + 2**-11
    assert y.max() == pytest.approx(1 / (1 - rate), rel=5e-3)
    assert y.max() == pytest.approx(1 / (1 - round(rate * 1024) / 1024))
    for apart in (1, 2, 31, 32):  # entries of one draw, or side by side in two
        ones = (y.ravel()[:-apart] == 0), (y.ravel()[apart:] == 0)
        assert abs(np.corrcoef(*ones)[0, 1]) < 4 / n**0.5, apart
    assert not np.array_equal(y, ops.dropout(x, rate, jax.random.key(1)))


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [1, 102, 512, 700, 1023])
def test_every_rate_has_its_number_of_bits(threshold, backend):
    shape = 257, 1021
    dropped = np.asarray(ops.dropout(jnp.ones(shape), threshold / 1024, jax.random.key(3))) == 0
    p = threshold / 1024
    assert abs(dropped.mean() - p) < 4 * (p * (1 - p) / dropped.size) ** 0.5


def test_random_words_are_those_of_jax():
    """The same generator, whose loop JAX writes to memory, and no draw twice."""
    key, counters = jax.random.key(7), np.arange(12, dtype=np.uint32).reshape(2, 6)
    ours = jax.jit(ops.threefry)(key, *counters)
    np.testing.assert_array_equal(np.concatenate(ours), threefry_2x32(jax.random.key_data(key), counters.ravel()))
    wide = jax.random.key(7, impl="rbg")  # four words a key
    drops = [np.asarray(ops.dropout(jnp.ones((64, 64)), 0.5, one)) for one in (key, wide, jax.random.fold_in(wide, 1))]
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(drops, 2))


@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="how XLA on CPU lays out memory")
@pytest.mark.parametrize("name", ["gelu", "gelu_new", "silu"])
def test_a_backward_pass_keeps_what_an_activation_reads_and_one_bit_of_dropout(name):
    x, kernels = jnp.ones((1024, 512)), jnp.ones((8, 512, 512))

    def loss(x, key, rate, depth):
        for kernel, one in zip(kernels[:depth], jax.random.split(key, depth), strict=True):
            x = ops.dropout(ops.activation(name)(x @ kernel), rate, one)
        return x.sum()

    def held(rate, depth):  # bytes for each entry of x
        step = jax.jit(jax.grad(loss), static_argnums=(2, 3))
        return step.lower(x, jax.random.key(0), rate, depth).compile().memory_analysis().temp_size_in_bytes / x.size

    # Growth with depth: versions of XLA differ in what they hold once.
    layers = len(kernels) // 2
    plain, dropped = ((held(rate, len(kernels)) - held(rate, layers)) / layers for rate in (0.0, 0.1))
    assert plain < 4 + 1  # one float32; without recomputing there would be two
    assert dropped - plain < 2 / 8


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_devices_draw_for_their_own_rows(backend):
    mesh = jax.make_mesh((8,), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    drop = jax.jit(lambda x, key: ops.dropout(x, 0.1, key), in_shardings=(rows, None), out_shardings=rows)
    x, key = jnp.ones((16, 7, 3)), jax.random.key(0)  # 21 entries a row: no whole number of words
    text = drop.lower(x, key).compile().as_text()
    assert not [name for name in ("all-gather", "all-reduce", "collective-permute", "all-to-all") if name in text]
    np.testing.assert_array_equal(drop(x, key), ops.dropout(x, 0.1, key))


def test_dropout_is_off_without_rng_or_rate():
    x = jnp.arange(4.0)
    assert ops.dropout(x, 0.5, None) is x
    assert ops.dropout(x, 0.0, jax.random.key(0)) is x
    assert ops.dropout(x.astype(jnp.bfloat16), 0.5, jax.random.key(0)).dtype == jnp.bfloat16
    least = ops.dropout(jnp.ones(100), 1e-9, jax.random.key(0))  # next to nothing is not nothing
    assert least.min() >= 0
    assert least.max() == pytest.approx(1024 / 1023)
    with pytest.raises(UserError, match=r"a dropout rate must lie in \[0, 1\), got 1.5"):
        ops.dropout(x, 1.5, jax.random.key(0))


def test_activations_are_torch_s():
    pytest.importorskip("torch")
    import torch
    from transformers.activations import ACT2FN

    x = np.linspace(-6, 6, 241, dtype=np.float32)
    for name in ops.ACTIVATIONS:
        theirs = ACT2FN[name](torch.tensor(x)).numpy()
        np.testing.assert_allclose(ops.activation(name)(x), theirs, rtol=0, atol=2e-6, err_msg=name)


def test_gelu_and_its_gradient():
    x = jnp.linspace(-5, 5, 101)
    np.testing.assert_allclose(ops.gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-6)
    slope = jax.vmap(jax.grad(lambda v: jax.nn.gelu(v, approximate=False)))(x)
    np.testing.assert_allclose(jax.vmap(jax.grad(ops.gelu))(x), slope, atol=1e-6)


@pytest.mark.parametrize("name", sorted(ops.ACTIVATIONS))
def test_an_activation_in_bfloat16_is_rounded_once(name):
    """The value, and the slope too; operation by operation, GELU would be off by several units in the last place."""
    x = jnp.linspace(-6, 6, 4001).astype(jnp.bfloat16)
    exact = x.astype(jnp.float32)
    values, pull = jax.vjp(ops.activation(name), x)
    slopes = jax.vmap(jax.grad(ops.activation(name)))(exact)
    for found, expected in ((values, ops.activation(name)(exact)), (pull(jnp.ones_like(x))[0], slopes)):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=2**-8, atol=1e-6)
