"""The small operations that every network shares: the product of dense layers, dropout, the activation table, and the
logits of words."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxvalues.errors import UserError


def dot_rows(x: jax.Array, kernel: jax.Array, _: Any = None, precision: lax.PrecisionLike = None) -> jax.Array:
    """x [..., D] times `kernel` [D, F], as the `dot_general` of an nn.Dense: all vectors of x are rows of one matrix.

    The same numbers as over [B, T, D]. There, however, XLA on CPU writes out a transposed copy of the output's gradient
    to get the kernel's, and computes all that led to it once more as it does so: a tenth of a training step.
    """
    product = lax.dot(x.reshape(-1, x.shape[-1]), kernel, precision=precision)
    return product.reshape(*x.shape[:-1], kernel.shape[-1])


def word_logits(
    x: jax.Array, embeddings: jax.Array, words: jax.Array | None = None, bias: jax.Array | None = None
) -> jax.Array:
    """Hidden states x [B, K, E] times word embeddings [V, E], plus a `bias` [V]: logits [B, K, V], float32.

    A vocabulary is large. Of some `words` alone, ids [A], they are the same numbers [B, K, A]; NaN for an id outside
    the vocabulary. `words` that are vectors [A, E] take the place of word embeddings, and have no bias: a soft
    verbalizer (WARP; Hambardzumyan et al., 2021). Raises `UserError` for words in another shape.
    """
    if words is not None:
        soft = jnp.issubdtype(jnp.result_type(words), jnp.floating)
        width = embeddings.shape[1]
        if words.ndim != 1 + soft or words.shape[1:] not in ((), (width,)):
            raise UserError(f"words are ids [A] or vectors [A, {width}], not {words.dtype} {words.shape}")
        embeddings = words if soft else embeddings.take(words, axis=0, mode="fill")
        bias = None if soft or bias is None else bias.take(words, mode="fill")
    logits = jnp.einsum("bke,ve->bkv", x, embeddings.astype(x.dtype), preferred_element_type=jnp.float32)
    return logits if bias is None else logits + bias


def gelu(x: jax.Array) -> jax.Array:
    """Gaussian error linear unit x Φ(x) (Hendrycks & Gimpel, 2016), exact; erf is cheaper than jax.nn.gelu's erfc."""
    return 0.5 * x * (1.0 + lax.erf(x * 0.5**0.5))


# Hugging Face's names of `hidden_act`
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_fast": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The activation function Hugging Face calls `name`; raises `UserError` for one that is not in the table."""
    if name not in ACTIVATIONS:
        raise UserError(f"activation '{name}' is not supported, expected one of {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]


def dropout(x: jax.Array, rate: float, rng: jax.Array | None) -> jax.Array:
    """Zero each entry of x [..., n] with probability `rate` and scale the others so that the mean stays (Srivastava
    et al., 2014); the identity where `rng` is None or the rate is 0.

    16 random bits an entry are enough, so two entries share one 32-bit draw, which makes it four times cheaper on CPU;
    drawing along one flat axis halves what dropout adds to compilation. The rate is rounded to a multiple of 2**-16
    and the scale follows the rounded rate.
    """
    if rng is None or rate == 0.0:
        return x
    threshold = round(rate * 2**16)
    if not 0 < threshold < 2**16:
        raise UserError(f"a dropout rate must lie in [0, 1), got {rate}")
    words = jax.random.bits(rng, ((x.size + 1) // 2,), jnp.uint32)
    bits = lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[: x.size].reshape(x.shape)
    return jnp.where(bits >= threshold, x / (1.0 - threshold / 2**16), 0).astype(x.dtype)
