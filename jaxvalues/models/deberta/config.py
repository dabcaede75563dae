"""The config of DeBERTa v1, v2 and v3."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from jaxvalues.errors import UserError, short
from jaxvalues.models.layers.config import TransformerConfig
from jaxvalues.models.layers.ops import activation

# What Hugging Face reads from the config of v2 and v3 only.
_SINCE_V2 = ("position_buckets", "share_att_key", "norm_rel_ebd", "conv_kernel_size", "conv_groups", "conv_act")


@dataclasses.dataclass(frozen=True)
class DebertaConfig(TransformerConfig):
    """The sizes and rates of a DeBERTa encoder; names and defaults are Hugging Face's."""

    type_vocab_size: int = 0
    layer_norm_eps: float = 1e-7
    pad_token_id: int = 0
    embedding_size: int | None = None  # width of the word vectors; None: hidden_size
    position_biased_input: bool = True  # absolute positions are added to the embeddings
    relative_attention: bool = False
    pos_att_type: tuple[str, ...] = ()
    max_relative_positions: int = -1  # below 1: max_position_embeddings
    position_buckets: int = -1  # logarithmic buckets of distances; none if below 1
    share_att_key: bool = False  # relative embeddings go through the projections of the words
    norm_rel_ebd: str = "none"
    conv_kernel_size: int = 0
    conv_groups: int = 1
    conv_act: str = "tanh"

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> DebertaConfig:
        """Read the contents of a config.json; raises `UserError` for what is missing or not supported."""
        is_v1 = config.get("model_type") == "deberta"
        given = {key: value for key, value in config.items() if not (is_v1 and key in _SINCE_V2)}
        kinds = given.get("pos_att_type") or ()
        if not isinstance(kinds, str | list | tuple) or not all(isinstance(kind, str) for kind in kinds):
            raise UserError(f"pos_att_type = {short(kinds)} in config.json, expected c2p, p2c or both")
        kinds = kinds.lower().split("|") if isinstance(kinds, str) else kinds
        given["pos_att_type"] = tuple(kind.strip() for kind in kinds)
        c = cls.read(given, {})

        def supported(key: str, value: Any, good: bool, expected: str) -> None:
            if not good:
                raise UserError(f"{key} = {short(value)} is not supported for {c.model_type} models, only {expected}")

        types = set(c.pos_att_type)
        distinct = types <= {"c2p", "p2c"} and len(types) == len(c.pos_att_type)
        supported("pos_att_type", config.get("pos_att_type"), distinct, "c2p, p2c or both")
        supported("talking_head", config.get("talking_head"), not config.get("talking_head"), "False")
        size = c.hidden_size // c.num_attention_heads
        given_size = config.get("attention_head_size") or size
        supported("attention_head_size", given_size, given_size == size, f"{size} (hidden_size / num_attention_heads)")
        norms = {part.strip() for part in c.norm_rel_ebd.lower().split("|")}
        supported("norm_rel_ebd", c.norm_rel_ebd, norms <= {"none", "layer_norm"}, "'none' or 'layer_norm'")
        odd = c.conv_kernel_size == 0 or c.conv_kernel_size % 2 == 1
        supported("conv_kernel_size", c.conv_kernel_size, odd, "odd sizes")
        divides = c.hidden_size % c.conv_groups == 0
        supported("conv_groups", c.conv_groups, divides, f"divisors of hidden_size {c.hidden_size}")
        activation(c.conv_act)
        return c

    @property
    def max_tokens(self) -> int:
        """The longest input T; relative positions alone set no limit."""
        return self.max_position_embeddings if self.position_biased_input else sys.maxsize

    @property
    def word_size(self) -> int:
        """The width of the word, position and token-type embeddings."""
        return self.embedding_size or self.hidden_size

    @property
    def relative_span(self) -> int:
        """The longest distance that is distinguished from longer ones."""
        return self.max_relative_positions if self.max_relative_positions > 0 else self.max_position_embeddings

    @property
    def relative_rows(self) -> int:
        """The rows of the table of relative embeddings, 2S."""
        return 2 * (self.position_buckets if self.position_buckets > 0 else self.relative_span)
