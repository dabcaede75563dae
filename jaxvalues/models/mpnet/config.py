"""The config of MPNet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxvalues.models.layers.post_norm import PostNormConfig

BUCKETS, MAX_DISTANCE = 32, 128
"""The buckets of distances, and the distance from which all share the last one."""


@dataclasses.dataclass(frozen=True)
class MPNetConfig(PostNormConfig):
    """The sizes and rates of an MPNet encoder; names and defaults are Hugging Face's."""

    pad_token_id: int = 1

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> MPNetConfig:
        """Read the contents of a config.json; raises `UserError` for what is missing or not supported.

        transformers computes with 32 buckets and with 1 for padding, whatever a config.json says.
        """
        return cls.read(config, {"relative_attention_num_buckets": BUCKETS, "pad_token_id": 1})
