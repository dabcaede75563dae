"""Verbalizers: the answer words for Yes and No, and the logit from their probabilities.

logit = log Σ_yes p(word) − log Σ_no p(word). For words of one token the softmax denominator cancels and is not
computed.
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
    """The tokens of a word after a space. Raises ConfigError for a word that is not in the tokenizer's vocabulary."""
    # Some tokenizers encode the space as a separate token. The shorter encoding has none.
    ids = min(tokenize.ids(f" {word}"), tokenize.ids(word), key=len)
    if not ids or tokenize.inner.unk_token_id in ids:
        raise ConfigError(
            f"formulation.verbalizer: the tokenizer cannot encode the word `{word}`, expected another word"
        )
    return ids


def variants(tokenize: SafeTokenizer, words: Sequence[str]) -> list[Row]:
    """The spellings of words that are single tokens: with and without a space before them, and in small letters."""
    forms = dict.fromkeys(form for word in words for form in (word, word.lower()))
    rows = [ids for form in forms for ids in (tokenize.ids(form), tokenize.ids(f" {form}"), tokenize.line_start(form))]
    return [[id] for id in dict.fromkeys(row[0] for row in rows if len(row) == 1) if id != tokenize.inner.unk_token_id]


@dataclass(frozen=True)
class Verbalizer:
    """The answer words as tokens: `ids` [A, R], padded with -1, and `is_yes` [A].

    With `soft`, two trained vectors (no and yes) replace the words. They are initialised from the words.
    """

    ids: np.ndarray
    is_yes: np.ndarray
    soft: bool = False

    @classmethod
    def make(
        cls, config: VerbalizerConfig, tokenize: SafeTokenizer, *, prefixes: bool = False, in_chat: bool = False
    ) -> Verbalizer:
        """The verbalizer of a config. In a chat, other spellings of its words count too.

        With `prefixes` a word stands for every answer that begins with it. Then a word that begins with another word of
        the same class is left out, because its probability is part of the other's. Raises ConfigError for equal words,
        for soft words of several tokens, and with `prefixes` for a word that begins with a word of the other class.
        """
        no, yes = config.no, config.yes
        names = (*no, *yes)
        words = [word_ids(tokenize, word) for word in names]
        for i, ids in enumerate(words):
            if ids in words[:i]:
                raise ConfigError(
                    f"formulation.verbalizer: `{names[i]}` and `{names[words.index(ids)]}` have the same tokens"
                )
        if config.soft and max(map(len, words)) > 1:
            longest = names[max(range(len(words)), key=lambda i: len(words[i]))]
            raise ConfigError(f"formulation.verbalizer: soft needs words of one token, and `{longest}` has more")
        classes = words[: len(no)], words[len(no) :]
        if (in_chat if config.variants is None else config.variants) and not config.soft:
            pairs = zip(classes, (no, yes), strict=True)
            classes = tuple(
                [*one, *(ids for ids in variants(tokenize, said) if ids not in words)] for one, said in pairs
            )
            words = [ids for one in classes for ids in one]
            names = tuple(map(tokenize.inner.decode, words))
        if prefixes:
            kept = [ids for ids in words if ids in drop_extensions(words)]
            classes = tuple(drop_extensions(one) for one in classes)
            if both := [ids for one in classes for ids in one if ids not in kept]:
                longer = names[words.index(both[0])]
                shorter = next(names[i] for i, ids in enumerate(words) if ids in kept and is_prefix(ids, both[0]))
                raise ConfigError(
                    f"formulation.verbalizer: `{longer}` begins with `{shorter}`, a word of the other answer, so its "
                    "probability would count for both: expected words that do not begin with one another"
                )
        no, yes = classes
        return cls(pad_rows([*no, *yes]), np.arange(len(no) + len(yes)) >= len(no), config.soft)

    @property
    def tokens(self) -> int:
        """The maximum number of tokens of a word, R."""
        return self.ids.shape[1]

    def words(self, params: Any) -> jax.Array:
        """The words whose logits the network computes: ids [A] of single tokens, or the trained vectors [2, E]."""
        return params["verbalizer"]["embedding"] if self.soft else jnp.asarray(self.ids[:, 0])

    def initial_vectors(self, words: jax.Array) -> jax.Array:
        """The initial vectors [2, E] of a soft verbalizer: the mean of the embeddings `words` [V, E] for each class."""
        rows = words[self.ids[:, 0]]
        return jnp.stack([rows[~self.is_yes].mean(axis=0), rows[self.is_yes].mean(axis=0)])

    def logit(self, scores: jax.Array) -> jax.Array:
        """Logits [...] of yes against no from logits or log-probabilities of the words [..., A] (soft: [..., 2])."""
        is_yes = np.array([False, True]) if self.soft else self.is_yes
        return logsumexp(scores[..., is_yes], axis=-1) - logsumexp(scores[..., ~is_yes], axis=-1)


def token_log_probs(logits: jax.Array, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """The log-probabilities [...] of token sequences.

    `logits` are [..., R, V] at each of R positions. `ids` [..., R] are the tokens of the sequences, and `mask` [..., R]
    is nonzero on real tokens.
    """
    each = jnp.take_along_axis(log_softmax(logits, axis=-1), ids[..., None], axis=-1)[..., 0]
    return jnp.where(mask != 0, each, 0.0).sum(axis=-1)


def any_log_prob(log_probs: jax.Array) -> jax.Array:
    """The logit log P − log(1 − P) of the union of A disjoint events, from their log-probabilities: [..., A] to [...].

    log P is clipped to −1e-6, so the logit and its gradient are finite.
    """
    log_p = jnp.minimum(logsumexp(log_probs, axis=-1), -1e-6)
    return log_p - jnp.log(-jnp.expm1(log_p))


def drop_extensions(words: Sequence[Row]) -> list[Row]:
    """The token sequences without those that begin with another one, so that the events of answers are disjoint."""
    distinct = list(dict.fromkeys(map(tuple, words)))
    return [list(w) for w in distinct if not any(o != w and is_prefix(o, w) for o in distinct)]


def is_prefix(shorter: Sequence[int], longer: Sequence[int]) -> bool:
    """Whether a token sequence begins with another one, or equals it."""
    return tuple(longer[: len(shorter)]) == tuple(shorter)
