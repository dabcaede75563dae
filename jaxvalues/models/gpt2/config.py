"""The config of GPT-2."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from jaxvalues.models.layers.config import TransformerConfig

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
    embd_pdrop: float = 0.1
    scale_attn_weights: bool = True  # scores are divided by sqrt(H)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> GPT2Config:
        """Read the contents of a config.json; raises `UserError` for what is missing or not supported."""
        given = {_NAMES.get(key, key): value for key, value in config.items() if value is not None}
        names = {ours: theirs for theirs, ours in _NAMES.items() if config.get(theirs) is not None}
        width = given.get("hidden_size")
        given.setdefault("intermediate_size", 4 * width if type(width) is int and 0 < width < 2**29 else 1)
        supported = {"scale_attn_by_inverse_layer_idx": False, "reorder_and_upcast_attn": False, "is_causal": True}
        return cls.read(given, supported, names)

    def with_dropout(self, hidden: float | None, attention: float | None) -> Self:
        """The config with these rates in place of its own, `hidden` also that of the embeddings; None keeps one."""
        changed = super().with_dropout(hidden, attention)
        return changed if hidden is None else dataclasses.replace(changed, embd_pdrop=hidden)
