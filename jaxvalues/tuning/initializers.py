"""Initializers of prompt vectors: functions (rng, words [V, E]) -> [P, E].

The choices are those of Lester et al. (2021, section 3.2): random vectors, words of the vocabulary, and the names of
the classes, here of the 20 categories. The tokens of a text are PEFT's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxvalues.config import TuningConfig
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import ConfigError
from jaxvalues.models.layers.initializers import standard_normal
from jaxvalues.tuning.method import Target

Initializer = Callable[[jax.Array, jax.Array], jax.Array]


def make_initializer(config: TuningConfig, target: Target) -> Initializer:
    """The initializer that `tuning.init` names. Raises ConfigError for a text without tokens."""
    length = config.length
    match config.init:
        case "normal":
            return normal(length, config.init_range)
        case "uniform":
            return uniform(length, config.init_range)
        case "vocabulary":
            return vocabulary(length)
        case "top_vocabulary":
            return vocabulary(length, config.init_top)
        case "text":
            return tokens(length, _encode(config.init_text, target))
        case "labels":
            return labels(length, [_encode(name, target) for name in CATEGORIES])


def normal(length: int, deviation: float) -> Initializer:
    """Normal with mean 0."""
    return lambda rng, words: deviation * standard_normal(rng, (length, words.shape[1]))


def uniform(length: int, half_width: float) -> Initializer:
    """Uniform in [-half_width, half_width)."""
    return lambda rng, words: jax.random.uniform(rng, (length, words.shape[1]), minval=-half_width, maxval=half_width)


def vocabulary(length: int, top: int | None = None) -> Initializer:
    """Random words of the vocabulary, or of its first `top` ids, which are the most frequent in most tokenizers.

    They are drawn without replacement if there are enough.
    """

    def draw(rng: jax.Array, words: jax.Array) -> jax.Array:
        size = min(top or len(words), len(words))
        return _rows(words, jax.random.choice(rng, size, (length,), replace=length > size))

    return draw


def tokens(length: int, ids: Sequence[int]) -> Initializer:
    """The words `ids`, repeated from the first or truncated to `length`."""
    return lambda rng, words: _rows(words, np.resize(np.asarray(ids, np.int32), length))


def labels(length: int, names: Sequence[Sequence[int]]) -> Initializer:
    """One vector for each of `names`, the mean of its tokens' embeddings, in their order and truncated to `length`.

    A prompt that is longer than there are names goes on with random words of the vocabulary, as in Lester et al.
    """

    def start(rng: jax.Array, words: jax.Array) -> jax.Array:
        each = [_rows(words, np.asarray(ids, np.int32)).mean(0) for ids in names[:length]]
        named = jnp.stack(each)
        rest = length - len(each)
        return jnp.concatenate([named, vocabulary(rest)(rng, words)]) if rest else named

    return start


def _rows(words: jax.Array, ids: jax.Array | np.ndarray) -> jax.Array:
    # An id outside the vocabulary gives NaN, not the vector of another word.
    return jnp.take(words, ids, axis=0, mode="fill")


def _encode(text: str, target: Target) -> list[int]:
    ids = target.encode(text)
    if not ids:
        raise ConfigError(f'tuning.init: the text "{text}" has no tokens, expected at least one')
    return ids
