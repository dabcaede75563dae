"""Verbalizers: the words by which a language model says Yes or No, and the logit that their probabilities give.

logit = log Σ_yes p(word) − log Σ_no p(word). What normalises the first token is the same in both and is never computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import log_softmax, logsumexp

from jaxvalues.config import VerbalizerConfig
from jaxvalues.errors import ConfigError
from jaxvalues.formulations.rows import Row, SafeTokenizer, pad_rows


def word_ids(tokenize: SafeTokenizer, word: str) -> Row:
    """The tokens of a word as it stands behind a blank. Raises ConfigError for a word that the tokenizer loses."""
    # Where a blank is no part of a token, some tokenizers make it a token of its own.
    ids = min(tokenize.ids(f" {word}"), tokenize.ids(word), key=len)
    if not ids or tokenize.inner.unk_token_id in ids:
        raise ConfigError(f"formulation.verbalizer: the tokenizer does not know the word `{word}`")
    return ids


@dataclass(frozen=True)
class Verbalizer:
    """The answer words as tokens: `ids` [A, R] padded with -1, and which of them say yes [A].

    `soft`: two learned vectors, no and yes, take the place of the words, with which they start.
    """

    ids: np.ndarray
    is_yes: np.ndarray
    soft: bool = False

    @classmethod
    def make(cls, config: VerbalizerConfig, tokenize: SafeTokenizer) -> Verbalizer:
        """The words of a config. Raises ConfigError for a word that stands for both, and for soft words of several
        tokens."""
        words = [word_ids(tokenize, word) for word in (*config.no, *config.yes)]
        names = (*config.no, *config.yes)
        for i, ids in enumerate(words):
            if ids in words[:i]:
                raise ConfigError(
                    f"formulation.verbalizer: `{names[i]}` and `{names[words.index(ids)]}` are the same tokens"
                )
        if config.soft and max(map(len, words)) > 1:
            longest = names[max(range(len(words)), key=lambda i: len(words[i]))]
            raise ConfigError(
                "formulation.verbalizer: soft learns a vector for each class from words of one token, and "
                f"`{longest}` has more"
            )
        return cls(pad_rows(words), np.arange(len(words)) >= len(config.no), config.soft)

    @property
    def tokens(self) -> int:
        """The most tokens R of a word."""
        return self.ids.shape[1]

    def words(self, params: Any) -> jax.Array:
        """What a network is asked for: the words' ids [A] (of one token each), or the learned vectors [2, E]."""
        return params["verbalizer"]["embedding"] if self.soft else jnp.asarray(self.ids[:, 0])

    def initial_vectors(self, words: jax.Array) -> jax.Array:
        """The vectors [2, E] of a soft verbalizer before training: the means of the words' embeddings [V, E]."""
        rows = words[self.ids[:, 0]]
        return jnp.stack([rows[~self.is_yes].mean(axis=0), rows[self.is_yes].mean(axis=0)])

    def logit(self, scores: jax.Array) -> jax.Array:
        """Logits [...] of yes against no from the words' logits or log-probabilities [..., A]; [..., 2] when soft."""
        is_yes = np.array([False, True]) if self.soft else self.is_yes
        return logsumexp(scores[..., is_yes], axis=-1) - logsumexp(scores[..., ~is_yes], axis=-1)


def token_log_probs(logits: jax.Array, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """log p of token sequences [...]: `logits` [..., R, V] of what stands at each of R places, the `ids` [..., R] that
    are asked for there, and `mask` [..., R], nonzero on their real tokens."""
    each = jnp.take_along_axis(log_softmax(logits, axis=-1), ids[..., None], axis=-1)[..., 0]
    return jnp.where(mask != 0, each, 0.0).sum(axis=-1)


def any_log_prob(log_probs: jax.Array) -> jax.Array:
    """The logit, log P − log(1 − P), of the event that any of A disjoint things happens: [..., A] to [...].

    P stays below 1 by float32's precision, so the logit is finite and so is its gradient.
    """
    log_p = jnp.minimum(logsumexp(log_probs, axis=-1), -1e-6)
    return log_p - jnp.log(-jnp.expm1(log_p))


def drop_extensions(words: Sequence[Row]) -> list[Row]:
    """The token sequences that begin with no other of them: what begins with the longer begins with the other, too."""
    distinct = list(dict.fromkeys(map(tuple, words)))
    return [list(w) for w in distinct if not any(o != w and w[: len(o)] == o for o in distinct)]
