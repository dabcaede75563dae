"""Scores answers with generative models: logits of single tokens, and log-probabilities of longer answers.

Both functions take a batch of `QuestionRows` and return [B, K, A] for K questions per row and A answers. A causal
network processes an argument once, and its questions and answers branch from it. T5 encodes a row once for all answers.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn import logsumexp

from jaxvalues.formulations.verbalizer import token_log_probs
from jaxvalues.models import T5, Branches, Packed, Prefix, Prompt, pack
from jaxvalues.models.layers.masks import last_token
from jaxvalues.tuning import Bound

Batch = dict[str, jax.Array]


def word_logits(
    module: nn.Module, bound: Bound, batch: Batch, key: jax.Array | None, words: jax.Array | None
) -> jax.Array:
    """The logits [B, K, A] of the answers `words`: ids of single tokens [A], or output vectors [A, E] instead.

    None: those of the whole vocabulary.
    """
    if isinstance(module, T5):
        return _T5Scorer(module, bound, batch, key).first_token_logits(words)
    if "question_ids" in batch:
        packed = _packed(batch)
        branches = Branches(*batch["question_ids"].shape[1:])
        return _causal(module, bound, packed, key, positions=packed.last, branches=branches, words=words)
    positions = last_token(batch["attention_mask"])[:, None]
    return _apply(
        module,
        bound,
        key,
        batch["input_ids"],
        batch["attention_mask"],
        prompt=bound.prompt,
        prefix=bound.prefix,
        positions=positions,
        words=words,
    )


def word_logits_and_mass(
    module: nn.Module, bound: Bound, batch: Batch, words: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The logits [B, K, A] of the answers `words`, ids [A], and the probability [B, K] that one of them comes next.

    It is for causal networks, without dropout, and computes the logits [B, K, V] of the whole vocabulary.
    """
    logits = word_logits(module, bound, batch, None, None)
    chosen = logits[..., words]
    return chosen, jnp.exp(logsumexp(chosen, axis=-1) - logsumexp(logits, axis=-1))


def answer_log_probs(
    module: nn.Module, bound: Bound, batch: Batch, key: jax.Array | None, answers: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """The exact log-probabilities [B, K, A] that the answer begins with each of the token sequences `answers`.

    `answers` are ids [B, K, A, R] and a mask, nonzero on real tokens. Each token is predicted from all tokens before
    it, so the network processes A · (R − 1) tokens in addition to each question.
    """
    ids, mask = answers
    if isinstance(module, T5):
        return _T5Scorer(module, bound, batch, key).log_probs(ids, mask)
    rows, questions, words, size = ids.shape
    packed = _packed(batch, ids[..., :-1], mask[..., :-1])
    positions = jnp.concatenate([packed.last[..., None], packed.answers.reshape(rows, questions, -1)], axis=2)
    logits = _causal(module, bound, packed, key, positions=positions.reshape(rows, -1))
    logits = logits.reshape(rows, questions, 1 + words * (size - 1), -1)
    first = jnp.broadcast_to(logits[:, :, None, :1], (rows, questions, words, 1, logits.shape[-1]))
    rest = logits[:, :, 1:].reshape(rows, questions, words, size - 1, logits.shape[-1])
    return token_log_probs(jnp.concatenate([first, rest], axis=3), ids, mask)


def _packed(batch: Batch, answer_ids: jax.Array | None = None, answer_mask: jax.Array | None = None) -> Packed:
    """The rows of a batch packed with their branches. A row that contains its question gets one empty branch."""
    none = jnp.zeros((len(batch["input_ids"]), 1, 0), jnp.int32)
    question = batch.get("question_ids", none), batch.get("question_mask", none)
    return pack(batch["input_ids"], batch["attention_mask"], *question, answer_ids, answer_mask)


def _causal(module: nn.Module, bound: Bound, packed: Packed, key: jax.Array | None, **options: Any) -> jax.Array:
    return _apply(
        module,
        bound,
        key,
        packed.input_ids,
        packed.attention_mask,
        position_ids=packed.position_ids,
        prompt=bound.prompt,
        prefix=bound.prefix,
        **options,
    )


def _apply(module: nn.Module, bound: Bound, key: jax.Array | None, *args: Any, **options: Any) -> Any:
    rngs = None if key is None else {"dropout": key}
    return module.apply({"params": bound.params}, *args, deterministic=key is None, rngs=rngs, **options)


class _T5Scorer:
    """Encodes a batch once, and scores answers with the decoder."""

    def __init__(self, module: T5, bound: Bound, batch: Batch, key: jax.Array | None) -> None:
        self.module, self.bound, self.mask = module, bound, batch["attention_mask"]
        self.prompt, self.prefix = bound.prompt or Prompt(), bound.prefix or Prefix()
        encoder_key, self.key = (None, None) if key is None else jax.random.split(key)
        self.hidden = _apply(
            module,
            bound,
            encoder_key,
            batch["input_ids"],
            self.mask,
            prompt=self.prompt.encoder,
            prefix=self.prefix.encoder,
            method="encode",
        )

    def first_token_logits(self, words: jax.Array) -> jax.Array:
        """The logits [B, 1, A] of the first token."""
        return self._decode(self._start(), words=words)

    def log_probs(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """See `answer_log_probs`; K is 1."""

        def one(ids: jax.Array, mask: jax.Array) -> jax.Array:  # [B, R]
            return token_log_probs(self._decode(jnp.concatenate([self._start(), ids[:, :-1]], axis=1)), ids, mask)

        return jax.vmap(one, in_axes=1, out_axes=1)(ids[:, 0], mask[:, 0])[:, None]

    def _start(self) -> jax.Array:
        return jnp.full((len(self.mask), 1), self.module.config.decoder_start_token_id, jnp.int32)

    def _decode(self, ids: jax.Array, words: jax.Array | None = None) -> jax.Array:
        return _apply(
            self.module,
            self.bound,
            self.key,
            ids,
            self.hidden,
            self.mask,
            prompt=self.prompt.decoder,
            prefix=self.prefix.decoder,
            cross_prefix=self.prefix.cross,
            words=words,
            method="decode",
        )
