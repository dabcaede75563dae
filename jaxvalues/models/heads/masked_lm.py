"""Masked language models: BERT, RoBERTa, MPNet and DeBERTa with a head that predicts the word at a position.

All heads are dense, activation, norm, and a product with the word embeddings; only the names of tensors differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxvalues.errors import UserError
from jaxvalues.models.architectures import ARCHITECTURES
from jaxvalues.models.checkpoints.conversion import Rule, Table, dense, norm, to_tensors
from jaxvalues.models.checkpoints.place import PlaceLike
from jaxvalues.models.checkpoints.tied import is_own, word_names
from jaxvalues.models.layers.dense import Dense
from jaxvalues.models.layers.initializers import normal
from jaxvalues.models.layers.norm import LayerNorm
from jaxvalues.models.layers.ops import activation, word_logits
from jaxvalues.models.loading import build_model, load_checkpoint, random_params, save_checkpoint
from jaxvalues.models.model_types import ROBERTA

Rules = tuple[Rule, ...]

_OUTPUTS = ("cls.predictions.decoder.weight", "lm_head.decoder.weight")
"""The output matrix in files that hold the word embeddings twice."""

# What transformers puts before the names of an encoder inside a larger model.
_PREFIXES = {
    "bert": "bert.",
    "roberta": "roberta.",
    "xlm-roberta": "roberta.",
    "mpnet": "mpnet.",
    "deberta": "deberta.",
    "deberta-v2": "deberta.",
}


class MaskedLM(nn.Module):
    """Tokens to logits over the vocabulary. Parameters are {"encoder": ..., "head": {"dense", "norm", "bias"}}; the
    output matrix is the word embeddings.
    """

    encoder: nn.Module

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        token_type_ids: jax.Array | None = None,
        *,
        prompt: jax.Array | None = None,
        prefix: jax.Array | None = None,
        positions: jax.Array | None = None,
        words: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Logits [B, T, V], float32, of every token, or [B, K, V] of those at `positions` [B, K].

        `input_ids` [B, T]; `attention_mask` [B, T] is nonzero on real tokens. `prompt` and `prefix` are those of the
        encoder; positions count tokens alone. A vocabulary is large. With `words`, ids [A] or vectors [A, E] in the
        place of word embeddings, only their logits are computed, [B, K, A] (see `models.layers.ops.word_logits`).
        Unless `deterministic`, a "dropout" rng is needed.
        """
        (hidden,) = self.encoder(
            input_ids, attention_mask, token_type_ids, prompt=prompt, prefix=prefix, deterministic=deterministic
        )
        if positions is not None:
            hidden = jnp.take_along_axis(hidden, positions[..., None], axis=1)
        embeddings = self.encoder.variables["params"]["embeddings"]["word"]["embedding"]  # [V, E]
        if self.encoder.stop_gradient_below > 0:
            embeddings = lax.stop_gradient(embeddings)
        return MaskedLMHead(self.encoder.config, self.encoder.dtype, name="head")(hidden, embeddings, words)


class MaskedLMHead(nn.Module):
    """Hidden states [B, K, D] and word embeddings [V, E] to logits [B, K, V], float32, or of some `words` alone."""

    config: Any
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, hidden: jax.Array, embeddings: jax.Array, words: jax.Array | None = None) -> jax.Array:
        c = self.config
        init = normal(c.initializer_range)
        x = Dense(embeddings.shape[1], dtype=self.dtype, kernel_init=init, name="dense")(hidden)
        # RoBERTa's and MPNet's heads have gelu whatever their configs say.
        x = activation("gelu" if c.model_type in (*ROBERTA, "mpnet") else c.hidden_act)(x)
        x = LayerNorm(c.layer_norm_eps, dtype=self.dtype, name="norm")(x)
        bias = self.param("bias", nn.initializers.zeros, (len(embeddings),))
        return word_logits(x, embeddings, words, bias)


def build_masked_lm(config: Mapping[str, Any], **options: Any) -> MaskedLM:
    """The masked language model that the contents of a config.json describe; `options` are those of `build_model`."""
    if config.get("model_type") not in _PREFIXES:
        raise UserError(
            f"a {config.get('model_type')} model is no masked language model, expected one of {', '.join(_PREFIXES)}"
        )
    if not config.get("tie_word_embeddings", True):
        raise UserError(
            "tie_word_embeddings = False is not supported for masked language models, only True: the output matrix "
            "is the word embeddings"
        )
    return MaskedLM(build_model(config, **options))


def init_masked_lm(config: Mapping[str, Any], rng: jax.Array | int = 0, **options: Any) -> tuple[MaskedLM, Any]:
    """A masked language model with random weights, `(module, params)`; see `init_model`."""
    module = build_masked_lm(config, **options)
    return module, random_params(module, rng)


def load_masked_lm(
    path_or_name: str | Path, *, revision: str | None = None, place: PlaceLike = None, **options: Any
) -> tuple[MaskedLM, dict[str, Any]]:
    """A pretrained masked language model, `(module, params)`; see `load_model`.

    Raises `UserError` for a checkpoint without such a head, or whose output matrix is not its word embeddings.
    """

    def make(config: dict[str, Any], tensors: Mapping[str, Any]) -> tuple[MaskedLM, Table]:
        table = masked_lm_table(config, tensors)
        for output in _OUTPUTS:
            if is_own(tensors, output, word_names(table)):
                raise UserError(f"{output} of {path_or_name} differs from its word embeddings, but must be the same")
        return build_masked_lm(config, **options), table

    return load_checkpoint(path_or_name, make, revision, place)


def save_masked_lm(folder: str | Path, config: Mapping[str, Any], params: Any) -> None:
    """Write a masked language model as the Hugging Face checkpoint that AutoModelForMaskedLM reads."""
    save_checkpoint(folder, config, masked_lm_tensors(config, params))


def masked_lm_tensors(config: Mapping[str, Any], params: Any) -> dict[str, np.ndarray]:
    """The checkpoint of a masked language model's parameters, {name: array}, named as transformers names it."""
    model_type = config["model_type"]
    encoder = to_tensors(params["encoder"], ARCHITECTURES[model_type].table, prefix=_PREFIXES[model_type])
    return encoder | to_tensors({"head": params["head"]}, Table(_namings(config)[0]))


def masked_lm_table(config: Mapping[str, Any], names: Iterable[str]) -> Table:
    """The conversion table of a whole masked language model whose checkpoint holds tensors of these `names`."""
    names = set(names)
    namings = _namings(config)
    head = next((rules for rules in namings if rules[0].hf in names), namings[0])
    table = ARCHITECTURES[config["model_type"]].table.under("encoder")
    # The encoder's ignorable tensors stay ignorable: copies of the word embeddings and heads of other tasks.
    return dataclasses.replace(table, rules=table.rules + head)


def masked_lm_settings(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """What transformers' from_pretrained must be told to read the head that `load_masked_lm` reads of these tensors'
    `names`: nothing, or that a DeBERTa has its authors' names."""
    head = masked_lm_table(config, names).rules[-len(_DEBERTA_HEAD) :]
    return {"legacy": False} if head == _DEBERTA_HEAD and config.get("legacy", True) else {}


def _head(dense_name: str, norm_name: str, bias_name: str) -> Rules:
    return *dense(dense_name, "head/dense"), *norm(norm_name, "head/norm"), Rule(bias_name, "head/bias")


_CLS = "cls.predictions"
_LM = "lm_predictions.lm_head"
_BERT_HEAD = _head(f"{_CLS}.transform.dense", f"{_CLS}.transform.LayerNorm", f"{_CLS}.bias")
_ROBERTA_HEAD = _head("lm_head.dense", "lm_head.layer_norm", "lm_head.bias")
_DEBERTA_HEAD = _head(f"{_LM}.dense", f"{_LM}.LayerNorm", f"{_LM}.bias")


def _namings(config: Mapping[str, Any]) -> tuple[Rules, ...]:
    """The names that a head may have in a checkpoint, first those that transformers reads.

    DeBERTa's published files have its authors' names; transformers uses these only if `legacy` is false.
    """
    match config["model_type"]:
        case "bert":
            return (_BERT_HEAD,)
        case "roberta" | "xlm-roberta" | "mpnet":
            return (_ROBERTA_HEAD,)
        case _:
            return (_BERT_HEAD, _DEBERTA_HEAD) if config.get("legacy", True) else (_DEBERTA_HEAD, _BERT_HEAD)
