"""Operations that every network shares: dropout, activations, and the logits of words."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvalues.errors import UserError
from jaxvalues.models.layers.products import times_matrix


def word_logits(
    x: jax.Array, embeddings: jax.Array, words: jax.Array | None = None, bias: jax.Array | None = None
) -> jax.Array:
    """Hidden states x [B, K, E] times word embeddings [V, E], plus a `bias` [V]: logits [B, K, V], float32.

    A vocabulary is large: `words`, ids [A], give the logits of these alone, [B, K, A], NaN for an id outside the
    vocabulary. `words` that are vectors [A, E] replace word embeddings and have no bias: a soft verbalizer (WARP;
    Hambardzumyan et al., 2021). Raises `UserError` for words of another shape.
    """
    if words is not None:
        soft = jnp.issubdtype(jnp.result_type(words), jnp.floating)
        width = embeddings.shape[1]
        if words.ndim != 1 + soft or words.shape[1:] not in ((), (width,)):
            raise UserError(f"words are ids [A] or vectors [A, {width}], not {words.dtype} {words.shape}")
        embeddings = words if soft else embeddings.take(words, axis=0, mode="fill")
        bias = None if soft or bias is None else bias.take(words, mode="fill")
    logits = times_matrix(x, embeddings, over=1).astype(jnp.float32)
    return logits if bias is None else logits + bias


def soft_cap(x: jax.Array, cap: float | None) -> jax.Array:
    """x drawn smoothly into (-cap, cap) (Gemma 2, section 2); x itself for None."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def _rounded_once(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """The function computed in float32, its result in the dtype of x: in bfloat16, each of its operations would round.

    It is computed again from x in the backward pass: cheap, and saves a second array of the size of x, the largest of a
    network.
    """

    def rounded(x: jax.Array) -> jax.Array:
        return function(x.astype(jnp.float32)).astype(x.dtype)

    return jax.checkpoint(rounded)


@_rounded_once
def gelu(x: jax.Array) -> jax.Array:
    """Gaussian error linear unit x Φ(x) (Hendrycks & Gimpel, 2016), exact; erf is cheaper than jax.nn.gelu's erfc."""
    return 0.5 * x * (1.0 + lax.erf(x * 0.5**0.5))


_gelu_tanh = _rounded_once(partial(jax.nn.gelu, approximate=True))
_silu = _rounded_once(jax.nn.silu)

# by Hugging Face's names of `hidden_act`
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": jax.nn.relu,
    "silu": _silu,
    "swish": _silu,
    "tanh": _rounded_once(jnp.tanh),
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The activation function Hugging Face calls `name`; raises `UserError` for one that is not in the table."""
    if name not in ACTIVATIONS:
        raise UserError(f"activation '{name}' is not supported, expected one of {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]


_BITS = 10  # the precision of a dropout rate


def dropout(x: jax.Array, rate: float, rng: jax.Array | None) -> jax.Array:
    """Zero each entry of x [..., n] with probability `rate` and scale the others so that the mean is kept
    (Srivastava et al., 2014); the identity where `rng` is None or the rate is 0.

    The rate is rounded to a multiple of 2**-10, and the scale follows the rounded rate.
    """
    if rng is None or rate == 0.0:
        return x
    if not 0.0 < rate < 1.0:
        raise UserError(f"a dropout rate must lie in [0, 1), got {rate}")
    threshold = min(max(round(rate * 2**_BITS), 1), 2**_BITS - 1)
    draw = _kept_on_cpu if jax.default_backend() == "cpu" else _kept
    # No draw is shared by two rows, which may lie on two devices.
    rows, size = (x.shape[0], math.prod(x.shape[1:])) if x.ndim > 1 else (1, x.size)
    kept = draw(rng, threshold, rows, size).reshape(x.shape)
    return jnp.where(kept, x / (1.0 - threshold / 2**_BITS), 0).astype(x.dtype)


def _kept(rng: jax.Array, threshold: int, rows: int, size: int) -> jax.Array:
    """Booleans [rows, size], False with probability threshold / 2**10. Two of them share one draw of 32 bits."""
    words = jax.random.bits(rng, (rows, -(-size // 2)), jnp.uint32)
    bits = lax.bitcast_convert_type(words, jnp.uint16).reshape(rows, -1)[:, :size]
    return bits >= threshold << 16 - _BITS


@partial(jax.jit, static_argnums=(1, 2, 3))
def _kept_on_cpu(rng: jax.Array, threshold: int, rows: int, size: int) -> jax.Array:
    """The same for XLA on CPU, which draws bits slowly and keeps all it has drawn for the backward pass.

    Each entry has a random number, compared with the threshold bit by bit. Word k holds bit k of 32 numbers. Bits below
    the threshold's lowest set bit need no comparison: at a rate of 0.1, 9 bits are drawn and 1 is kept per entry. The
    loop prevents XLA from repeating the draws for every entry; jit avoids tracing it for every layer.
    """
    digits = [bool(threshold >> k & 1) for k in range(_BITS)]
    digits = digits[digits.index(True) :]
    # Two words at a time. A leading 0 changes nothing: no number is below 0.
    digits = np.array([False] * (len(digits) % 2) + digits).reshape(-1, 2)
    row, column = (lax.broadcasted_iota(jnp.uint32, (rows, -(-size // 32)), axis) for axis in (0, 1))
    place = row * np.uint32(column.shape[1]) + column

    def compare(below: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        pair, ones = drawn
        for word, one in zip(threefry(rng, place, pair), ones, strict=True):
            below = jnp.where(one, ~word | below, ~word & below)
        return below, None

    below, _ = lax.scan(compare, jnp.zeros_like(place), (np.arange(len(digits), dtype=np.uint32), digits))
    each = below[..., None] >> np.arange(32, dtype=np.uint32) & 1
    return (each == 0).reshape(rows, -1)[:, :size]


_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = np.uint32(0x1BD11BDA)


def threefry(rng: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two random words for each pair of counters (x, y) under the key `rng`: Threefry-2x32 of 20 rounds (Salmon et al.,
    2011), the generator of `jax.random`.

    All rounds stand in one expression. `jax.random.bits` has a loop over the rounds, whose arrays XLA on CPU writes to
    memory again and again: five times slower, and slower to compile.
    """
    words = jax.random.key_data(rng).reshape(-1, 2)
    # Other generators have keys of four words, whose halves may be equal: 1 and 2 times them do not cancel.
    first, second = (words << np.arange(len(words), dtype=np.uint32)[:, None]).sum(axis=0, dtype=np.uint32)
    keys = first, second, first ^ second ^ _PARITY
    x, y = x + keys[0], y + keys[1]
    for i in range(20):
        x = x + y
        turn = np.uint32(_ROTATIONS[i % 8])
        y = x ^ (y << turn | y >> np.uint32(32) - turn)
        if i % 4 == 3:
            group = i // 4 + 1
            x, y = x + keys[group % 3], y + keys[(group + 1) % 3] + np.uint32(group)
    return x, y
