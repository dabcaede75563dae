"""The config of BERT and RoBERTa."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxvalues.models.layers.config import TransformerConfig
from jaxvalues.models.model_types import ROBERTA


@dataclasses.dataclass(frozen=True)
class BertConfig(TransformerConfig):
    """The sizes and rates of a BERT or RoBERTa encoder; names and defaults are Hugging Face's."""

    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> BertConfig:
        """Read the contents of a config.json; raises `UserError` for what is missing or not supported."""
        given = {key: value for key, value in config.items() if value is not None}
        given.setdefault("pad_token_id", 1 if config.get("model_type") in ROBERTA else 0)
        return cls.read(given, {})

    @property
    def is_roberta(self) -> bool:
        """Whether positions count real tokens from `pad_token_id` + 1, where BERT's count all from 0."""
        return self.model_type in ROBERTA

    @property
    def max_tokens(self) -> int:
        """The longest input T that the position embeddings allow."""
        return self.max_position_embeddings - (self.pad_token_id + 1 if self.is_roberta else 0)
