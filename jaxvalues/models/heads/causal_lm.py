"""Causal language models: a `Decoder` and its output matrix, which is the word embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn
from jax import lax

from jaxvalues.errors import UserError
from jaxvalues.models.architectures import ARCHITECTURES
from jaxvalues.models.checkpoints.conversion import Place, Table, to_tensors
from jaxvalues.models.layers.branches import Branches
from jaxvalues.models.layers.cache import Cache
from jaxvalues.models.layers.ops import word_logits
from jaxvalues.models.loading import build_model, load_checkpoint, random_params, save_checkpoint

# What transformers puts before the names of a network inside a language model.
_PREFIXES = {"gpt2": "transformer."}


class CausalLM(nn.Module):
    """Tokens to logits over the vocabulary. Parameters are {"encoder": ...}, the key of the network in every system."""

    encoder: nn.Module

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
        position_ids: jax.Array | None = None,
        prompt: jax.Array | None = None,
        positions: jax.Array | None = None,
        words: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache]:
        """Logits as above, of tokens that follow those of a `cache`, and the cache with them in it (see `Decoder`)."""
        hidden, cache = self.encoder.extend(
            input_ids, attention_mask, cache, position_ids=position_ids, prompt=prompt, positions=positions
        )
        return self._logits(hidden, words), cache

    def _logits(self, hidden: jax.Array, words: jax.Array | None) -> jax.Array:
        embeddings = self.encoder.variables["params"]["embeddings"]["word"]["embedding"]  # [V, D]
        if self.encoder.stop_gradient_below > 0:
            embeddings = lax.stop_gradient(embeddings)
        return word_logits(hidden, embeddings, words)


def build_causal_lm(config: Mapping[str, Any], **options: Any) -> CausalLM:
    """The causal language model that the contents of a config.json describe; `options` are those of `build_model`."""
    model_type = config.get("model_type")
    if model_type not in _PREFIXES:
        raise UserError(f"a {model_type} model is no causal language model, expected one of {', '.join(_PREFIXES)}")
    if not config.get("tie_word_embeddings", True):
        raise UserError(f"tie_word_embeddings = False is not supported for {model_type} models, only True")
    return CausalLM(build_model(config, **options))


def init_causal_lm(config: Mapping[str, Any], rng: jax.Array | int = 0, **options: Any) -> tuple[CausalLM, Any]:
    """A causal language model with random weights, `(module, params)`; see `init_model`."""
    module = build_causal_lm(config, **options)
    return module, random_params(module, rng)


def load_causal_lm(
    path_or_name: str | Path, *, revision: str | None = None, place: Place | None = None, **options: Any
) -> tuple[CausalLM, dict[str, Any]]:
    """A pretrained causal language model, `(module, params)`; see `load_model`."""

    def make(config: dict[str, Any], _: Any) -> tuple[CausalLM, Table]:
        return build_causal_lm(config, **options), ARCHITECTURES[config["model_type"]].table.under("encoder")

    return load_checkpoint(path_or_name, make, revision, place)


def save_causal_lm(folder: str | Path, config: Mapping[str, Any], params: Any) -> None:
    """Write a causal language model as the Hugging Face checkpoint that AutoModelForCausalLM reads."""
    model_type = config["model_type"]
    tensors = to_tensors(params["encoder"], ARCHITECTURES[model_type].table, prefix=_PREFIXES[model_type])
    save_checkpoint(folder, config, tensors)
