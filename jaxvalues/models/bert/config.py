"""The config of BERT and RoBERTa."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxvalues.models.layers.post_norm import PostNormConfig
from jaxvalues.models.model_types import ROBERTA


@dataclasses.dataclass(frozen=True)
class BertConfig(PostNormConfig):
    """The sizes and rates of a BERT or RoBERTa encoder; names and defaults are Hugging Face's."""

    type_vocab_size: int = 2

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> BertConfig:
        """Read the contents of a config.json; raises `UserError` for what is missing or not supported."""
        given = {key: value for key, value in config.items() if value is not None}
        given.setdefault("pad_token_id", 1 if config.get("model_type") in ROBERTA else 0)
        return cls.read(given, {})

    @property
    def token_types(self) -> int:
        return self.type_vocab_size

    @property
    def counts_real(self) -> bool:
        """RoBERTa's positions do, BERT's do not."""
        return self.model_type in ROBERTA
