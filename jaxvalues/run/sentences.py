"""Texts as vectors, by a pretrained encoder: the embedding space in which examples are the nearest ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvalues.data.batches import Tokens, collate, evaluation_plan
from jaxvalues.data.tokenizers import load_tokenizer, pad_id
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.formulations.examples import Examples
from jaxvalues.formulations.rows import SafeTokenizer, as_arrays
from jaxvalues.models.checkpoints.weights import content_hash
from jaxvalues.models.loading import fetch, load_model, tokenizer_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from jaxvalues.config import Config
    from jaxvalues.data.arguments import Split

LENGTHS = (32, 64, 128, 256)
"""Padded lengths; texts are cut at the last."""
BATCH = 32


@dataclass(frozen=True, eq=False)
class SentenceEncoder:
    """The mean of the last hidden states over the tokens of a text, of length 1 (Reimers & Gurevych, 2019).

    `identity` is the hash of the weights.
    """

    module: nn.Module
    params: dict[str, Any]
    tokenizer: PreTrainedTokenizerBase
    identity: str

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors [n, D] float32 of texts."""
        first, last = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        lengths = [length for length in LENGTHS if length <= self.module.config.max_tokens] or [LENGTHS[0]]
        known = SafeTokenizer(self.tokenizer)(texts)
        tokens = Tokens(as_arrays([[first, *known[text][: lengths[-1] - 2], last] for text in texts]), None)
        vectors, pad = np.zeros((len(tokens), self.module.config.hidden_size), np.float32), pad_id(self.tokenizer)
        for planned in evaluation_plan(tokens.lengths, lengths, BATCH):
            batch = collate(tokens, planned, BATCH, pad)
            found = self._encode(self.params, batch["input_ids"], batch["attention_mask"])
            vectors[planned.rows] = np.asarray(found)[: len(planned.rows)]
        return vectors

    @cached_property
    def _encode(self) -> Any:
        def encode(params: dict[str, Any], ids: jax.Array, mask: jax.Array) -> jax.Array:
            (hidden,) = self.module.apply({"params": params}, ids, mask, layers=(-1,))
            mean = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
            return mean / jnp.maximum(jnp.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)

        return jax.jit(encode)


def load_sentence_encoder(path_or_name: str) -> SentenceEncoder:
    """The encoder of a checkpoint folder or hub name. Raises UserError for what is no encoder with a tokenizer."""
    folder = fetch(path_or_name)
    module, params = load_model(folder)
    tokenizer = load_tokenizer(tokenizer_folder(folder))
    if None in (tokenizer.cls_token_id, tokenizer.sep_token_id):
        raise UserError(f"{path_or_name} is no encoder of sentences: its tokenizer has no CLS or SEP token")
    return SentenceEncoder(module, params, tokenizer, content_hash(folder))


def make_examples(config: Config, training: Split) -> Examples | None:
    """The examples that the prompts of a run show, drawn from training arguments; None where they show none.

    Raises ConfigError for too few conclusions, and for an encoder that cannot be had.
    """
    shown = config.formulation.examples
    if shown is None:
        return None
    return Examples.make(shown, training, config.seed, encoder=_encoder(config))


def read_examples(config: Config, text: str) -> Examples | None:
    """The examples of a run that is finished, from the `text` that it kept."""
    shown = config.formulation.examples
    return None if shown is None else Examples.read(shown, text, config.seed, encoder=_encoder(config))


def _encoder(config: Config) -> SentenceEncoder | None:
    path = config.formulation.examples.encoder
    if path is None:
        return None
    try:
        return load_sentence_encoder(path)
    except UserError as error:
        raise ConfigError(f"formulation.examples.encoder: {error}") from None
