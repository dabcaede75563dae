"""Causal language models: a `Decoder` and its output matrix, which is the word embeddings or one of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn
from jax import lax

from jaxvalues.errors import UserError
from jaxvalues.models.architectures import ARCHITECTURES
from jaxvalues.models.checkpoints.conversion import Table, to_tensors
from jaxvalues.models.checkpoints.place import PlaceLike
from jaxvalues.models.checkpoints.tied import is_own, word_names
from jaxvalues.models.layers.branches import Branches
from jaxvalues.models.layers.cache import Cache
from jaxvalues.models.layers.embedding import Embedding
from jaxvalues.models.layers.initializers import normal
from jaxvalues.models.layers.ops import soft_cap, word_logits
from jaxvalues.models.llama.checkpoint import LM_HEAD
from jaxvalues.models.loading import build_model, load_checkpoint, random_params, save_checkpoint
from jaxvalues.models.model_types import LLAMA

# What transformers puts before the names of a network inside a language model.
_PREFIXES = {"gpt2": "transformer.", **dict.fromkeys(LLAMA, "model.")}


class CausalLM(nn.Module):
    """Tokens to logits over the vocabulary. Parameters are {"encoder": ...}, the key of the network in every system.

    Unless `is_tied`, the output matrix is {"head": {"embedding" [V, D]}} beside it. `cap` is the soft-capping of the
    logits (see `models.layers.ops.soft_cap`).
    """

    encoder: nn.Module
    is_tied: bool = True
    cap: float | None = None

    def setup(self) -> None:
        if not self.is_tied:
            c = self.encoder.config
            self.head = Embedding((c.vocab_size, c.hidden_size), normal(c.initializer_range))

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        *,
        position_ids: jax.Array | None = None,
        prompt: jax.Array | None = None,
        prefix: jax.Array | None = None,
        positions: jax.Array | None = None,
        branches: Branches | None = None,
        words: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Logits [B, T, V], float32, of the word after every token, or [B, K, V] after those at `positions` [B, K].

        A vocabulary is large. With `words`, ids [A] or vectors [A, D] in the place of word embeddings, only their
        logits are computed, [B, K, A] (see `models.layers.ops.word_logits`). The other arguments are those of
        `Decoder`.
        """
        (hidden,) = self.encoder(
            input_ids,
            attention_mask,
            position_ids=position_ids,
            prompt=prompt,
            prefix=prefix,
            positions=positions,
            branches=branches,
            deterministic=deterministic,
        )
        return self._logits(hidden, words)

    def extend(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        cache: Cache,
        *,
        before: Cache | None = None,
        position_ids: jax.Array | None = None,
        prompt: jax.Array | None = None,
        positions: jax.Array | None = None,
        words: jax.Array | None = None,
        filled: int | None = None,
    ) -> tuple[jax.Array, Cache]:
        """Logits as above, of tokens that follow those of a `cache`, and the cache with them in it (see `Decoder`)."""
        hidden, cache = self.encoder.extend(
            input_ids,
            attention_mask,
            cache,
            before=before,
            position_ids=position_ids,
            prompt=prompt,
            positions=positions,
            filled=filled,
        )
        return self._logits(hidden, words), cache

    def _logits(self, hidden: jax.Array, words: jax.Array | None) -> jax.Array:
        if not self.is_tied:
            return soft_cap(word_logits(hidden, self.head(), words), self.cap)
        embeddings = self.encoder.variables["params"]["embeddings"]["word"]["embedding"]  # [V, D]
        if self.encoder.stop_gradient_below > 0:
            embeddings = lax.stop_gradient(embeddings)
        return soft_cap(word_logits(hidden, embeddings, words), self.cap)


def build_causal_lm(config: Mapping[str, Any], **options: Any) -> CausalLM:
    """The causal language model that the contents of a config.json describe; `options` are those of `build_model`."""
    model_type = config.get("model_type")
    if model_type not in _PREFIXES:
        raise UserError(f"a {model_type} model is no causal language model, expected one of {', '.join(_PREFIXES)}")
    if model_type == "gpt2" and not config.get("tie_word_embeddings", True):
        raise UserError(f"tie_word_embeddings = False is not supported for {model_type} models, only True")
    encoder = build_model(config, **options)
    c = encoder.config
    return CausalLM(encoder, getattr(c, "tie_word_embeddings", True), getattr(c, "final_logit_softcapping", None))


def init_causal_lm(config: Mapping[str, Any], rng: jax.Array | int = 0, **options: Any) -> tuple[CausalLM, Any]:
    """A causal language model with random weights, `(module, params)`; see `init_model`."""
    module = build_causal_lm(config, **options)
    return module, random_params(module, rng)


def load_causal_lm(
    path_or_name: str | Path, *, revision: str | None = None, place: PlaceLike = None, **options: Any
) -> tuple[CausalLM, dict[str, Any]]:
    """A pretrained causal language model, `(module, params)`; see `load_model`.

    The tensors of the Llama family decide whether the output matrix is tied. Raises `UserError` for a GPT-2 that has
    one of its own.
    """

    def make(config: dict[str, Any], tensors: Mapping[str, Any]) -> tuple[CausalLM, Table]:
        config = untied_where_held(config, tensors)
        module, table = build_causal_lm(config, **options), causal_lm_table(config["model_type"])
        if config["model_type"] not in LLAMA and is_own(tensors, LM_HEAD.hf, word_names(table)):
            raise UserError(f"{LM_HEAD.hf} of {path_or_name} differs from its word embeddings, but must be the same")
        return module, table

    return load_checkpoint(path_or_name, make, revision, place)


def untied_where_held(config: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json that calls the output matrix of the Llama family tied only where the weights hold no other one:
    merged adapters and heads trained apart leave the flag as it was, and transformers follows the weights too."""
    model_type = config.get("model_type")
    if model_type not in LLAMA or config.get("tie_word_embeddings") is False:
        return dict(config)  # the matrices are large: they are compared only where that can change something
    own = is_own(tensors, LM_HEAD.hf, word_names(ARCHITECTURES[model_type].table))
    return {**config, "tie_word_embeddings": False} if own else dict(config)


def causal_lm_table(model_type: str) -> Table:
    """The conversion table of a whole causal language model."""
    table = ARCHITECTURES[model_type].table.under("encoder")
    return dataclasses.replace(table, rules=(*table.rules, LM_HEAD)) if model_type in LLAMA else table


def save_causal_lm(folder: str | Path, config: Mapping[str, Any], params: Any) -> None:
    """Write a causal language model as the Hugging Face checkpoint that AutoModelForCausalLM reads."""
    model_type = config["model_type"]
    tensors = to_tensors(params["encoder"], ARCHITECTURES[model_type].table, prefix=_PREFIXES[model_type])
    if "head" in params:
        tensors |= to_tensors({"head": params["head"]}, Table((LM_HEAD,)))
    save_checkpoint(folder, config, tensors)
