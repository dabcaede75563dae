"""Measurements of the device: how fast it multiplies, and whether a processor is faster in bfloat16 than in float32."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxvalues.errors import ConfigError
from jaxvalues.models.layers.products import times_matrix

VARIABLE = "JAXVALUES_CPU_DTYPE"
"""An environment variable that takes the place of the measurement, where numbers must not depend on the processor."""
DTYPES = ("float32", "bfloat16")
GAIN = 1.3
"""How much faster bfloat16 must be to be chosen: it rounds more, and norms, softmax and the optimizer gain nothing."""
_ROWS, _WIDTH, _TIMES = (16, 48), 384, 7
_LARGE = 4096
"""Rows and width of a product that fills an accelerator."""


@functools.cache
def cpu_dtype() -> str:
    """The faster dtype of a dense layer, forward and backward, on this processor: a few milliseconds, once a process.

    Processors with bfloat16 units (AMX, or AVX-512 BF16) gain a factor of 1.8 to 5, others lose: names of processors
    say less than a product of the size of a small network's. Raises ConfigError for an unknown dtype in `VARIABLE`.
    """
    if (fixed := os.environ.get(VARIABLE)) is not None:
        if fixed not in DTYPES:
            raise ConfigError(f"the environment variable {VARIABLE} is {fixed!r}, expected {' or '.join(DTYPES)}")
        return fixed
    seconds = _fastest({name: _product(jnp.dtype(name)) for name in DTYPES})
    return "bfloat16" if seconds["float32"] > GAIN * seconds["bfloat16"] else "float32"


@functools.cache
def operations_per_second(dtype: str) -> float:
    """The floating-point operations of a dense layer, forward and backward, that the first device does in a second."""
    rows, width = ((_LARGE,), _LARGE) if jax.default_backend() != "cpu" else (_ROWS, _WIDTH)
    seconds = _fastest({dtype: _product(jnp.dtype(dtype), rows, width)})[dtype]
    return 3 * 2 * math.prod(rows) * width**2 / seconds


def _product(dtype: jnp.dtype, rows: tuple[int, ...] = _ROWS, width: int = _WIDTH) -> Callable[[], object]:
    """A dense layer's forward and backward pass, compiled and run once."""
    x = jnp.ones((*rows, width), dtype)
    kernel = jnp.ones((width, width))

    @jax.jit
    def passes(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, pull = jax.vjp(times_matrix, x, kernel)
        return pull(y)

    def run() -> object:
        return jax.block_until_ready(passes(x, kernel))

    run()
    return run


def _fastest(each: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest time of each function in seconds; they take turns, so that other work on the machine hits all."""
    times: dict[str, list[float]] = {name: [] for name in each}
    for _ in range(_TIMES):
        for name, run in each.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: min(taken) for name, taken in times.items()}
