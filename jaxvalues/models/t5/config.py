"""The config of T5, its version 1.1 and Flan-T5."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from jaxvalues.errors import UserError
from jaxvalues.models.layers.config import read_fields
from jaxvalues.models.layers.ops import activation
from jaxvalues.models.layers.validation import check_supported, check_total


@dataclasses.dataclass(frozen=True)
class T5Config:
    """The sizes and rates of a T5; names and defaults are Hugging Face's."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    num_decoder_layers: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"
    tie_word_embeddings: bool = True  # the output matrix is the word embeddings
    scale_decoder_outputs: bool = True  # logits are scaled by d_model ** -0.5
    pad_token_id: int = 0
    decoder_start_token_id: int = 0  # the first token that the decoder reads

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> T5Config:
        """Read the contents of a config.json; raises `UserError` for what is missing or not supported.

        Logits are scaled where the output matrix is tied, unless `scale_decoder_outputs` (written by transformers 5)
        says otherwise. `tie_word_embeddings` in a file is not reliable: see `load_t5`.
        """
        given = {key: value for key, value in config.items() if value is not None}
        defaults = {
            "num_decoder_layers": given.get("num_layers"),
            "scale_decoder_outputs": given.get("tie_word_embeddings", True),
            "decoder_start_token_id": given.get("pad_token_id", 0),
        }
        fields = read_fields(cls, {**defaults, **given}, "t5")
        check_supported(given, {"is_encoder_decoder": True}, "t5")
        c = cls(**fields)
        *gated, _ = c.feed_forward_proj.split("-")
        if gated not in ([], ["gated"]):
            raise UserError(f"feed_forward_proj = {c.feed_forward_proj!r} is not supported, only ACT or gated-ACT")
        activation(c.act)
        check_supported(given, {"dense_act_fn": c.act, "is_gated_act": c.is_gated}, f"{c.feed_forward_proj} t5")
        layer = c.d_model * (4 * c.num_heads * c.d_kv + 3 * c.d_ff)
        keys = ("d_model", "d_ff", "d_kv", "num_heads", "vocab_size", "num_layers")
        sizes = {key: getattr(c, key) for key in keys}
        check_total(sizes, c.vocab_size * c.d_model + 2 * (c.num_layers + c.num_decoder_layers) * layer)
        buckets, farthest = c.relative_attention_num_buckets, c.relative_attention_max_distance
        if not 4 <= buckets < 2 * farthest:
            raise UserError(
                f"relative_attention_num_buckets {buckets} in config.json must lie between 4 and twice "
                f"relative_attention_max_distance {farthest}"
            )
        return c

    @property
    def is_gated(self) -> bool:
        return self.feed_forward_proj.startswith("gated-")

    @property
    def act(self) -> str:
        """The activation; "gated-gelu" means the approximate one, as in the original code."""
        name = self.feed_forward_proj.split("-")[-1]
        return "gelu_new" if self.feed_forward_proj == "gated-gelu" else name

    @property
    def max_tokens(self) -> int:
        """The longest input T; relative positions set no limit."""
        return sys.maxsize
