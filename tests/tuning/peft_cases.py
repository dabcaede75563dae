"""Networks and settings for tests of PEFT's format."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxvalues.config import TuningConfig

ENCODER = {"vocab_size": 70, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4} | {
    "intermediate_size": 96,
    "max_position_embeddings": 40,
}
DEBERTA = {**ENCODER, "relative_attention": True, "position_biased_input": False, "type_vocab_size": 0}
HF_CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 70, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 40}
    | {"bos_token_id": None, "eos_token_id": None},
    "llama": {**ENCODER, "num_key_value_heads": 2},
    "gemma3_text": {**ENCODER, "num_key_value_heads": 2, "head_dim": 24, "sliding_window": 64}
    | {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None},
    "t5": {"vocab_size": 70, "d_model": 64, "d_ff": 96, "num_layers": 2, "num_heads": 4, "d_kv": 24}
    | {"num_decoder_layers": 3, "feed_forward_proj": "gated-gelu"},  # four heads are wider than the network
    "bert": {**ENCODER, "type_vocab_size": 2, "pad_token_id": 0},
    "roberta": {**ENCODER, "type_vocab_size": 1, "pad_token_id": 1},
    "mpnet": {**ENCODER, "pad_token_id": 1},
    "deberta": {**DEBERTA, "pos_att_type": ["c2p", "p2c"], "legacy": True},
    "deberta-v2": {**DEBERTA, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "share_att_key": True}
    | {"norm_rel_ebd": "layer_norm", "legacy": True},
}
P, RANK, ALPHA = 3, 4, 6.0


def draw(*shape: int) -> np.ndarray:
    return np.random.RandomState(sum(shape)).standard_normal(shape).astype(np.float32)


def settings(method: str, **more: Any) -> TuningConfig:
    return TuningConfig(method=method, **({"rank": RANK, "alpha": ALPHA} if method == "lora" else {}), **more)
