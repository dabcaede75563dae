"""The config of GPT-2."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxvalues.models.layers.config import TransformerConfig, check_supported

# GPT-2's own names of the fields; Hugging Face reads both.
_NAMES = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "activation_function": "hidden_act",
    "resid_pdrop": "hidden_dropout_prob",
    "attn_pdrop": "attention_probs_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
}


@dataclasses.dataclass(frozen=True)
class GPT2Config(TransformerConfig):
    """The sizes and rates of a GPT-2, under the names of `TransformerConfig`; defaults are Hugging Face's."""

    hidden_act: str = "gelu_new"
    max_position_embeddings: int = 1024
    layer_norm_eps: float = 1e-5
    scale_attn_weights: bool = True  # scores are divided by sqrt(H)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> GPT2Config:
        """Read the contents of a config.json; raises `UserError` for what is missing or not supported."""
        given = {_NAMES.get(key, key): value for key, value in config.items() if value is not None}
        if "hidden_size" in given:
            given.setdefault("intermediate_size", 4 * given["hidden_size"])
        rate = given.get("hidden_dropout_prob", cls.hidden_dropout_prob)
        own = {"scale_attn_by_inverse_layer_idx": False, "reorder_and_upcast_attn": False}
        check_supported(given, {**own, "embd_pdrop": rate}, "gpt2")  # one rate for embeddings and layers
        return cls.read(
            given, {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
        )
