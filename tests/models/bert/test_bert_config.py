"""The config of BERT and RoBERTa: defaults, and which config.json it refuses."""

from __future__ import annotations

import pytest
from bert_reference import CONFIGS

from jaxvalues.errors import UserError
from jaxvalues.models.bert.config import BertConfig


def test_unsupported_and_missing_settings_are_errors():
    config = CONFIGS["roberta"]
    for change, message in {
        "position_embedding_type": "position_embedding_type = 'x' is not supported for roberta models, only 'absolute'",
        "is_decoder": "is_decoder = 'x' is not supported",
        "hidden_act": "activation 'x' is not supported, expected one of gelu",
    }.items():
        with pytest.raises(UserError, match=message):
            BertConfig.from_hf(config | {change: "x"})
    with pytest.raises(UserError, match="hidden_size 64 is not a multiple of num_attention_heads 7"):
        BertConfig.from_hf(config | {"num_attention_heads": 7})
    with pytest.raises(UserError, match="of the roberta model lacks vocab_size, hidden_size"):
        BertConfig.from_hf({key: value for key, value in config.items() if key not in ("vocab_size", "hidden_size")})


def test_padding_differs_between_bert_and_roberta():
    assert BertConfig.from_hf({k: v for k, v in CONFIGS["bert"].items() if k != "pad_token_id"}).pad_token_id == 0
    assert BertConfig.from_hf(CONFIGS["bert"]).max_tokens == 40
    config = CONFIGS["roberta"]
    assert BertConfig.from_hf(config).max_tokens == 38  # positions count from pad_token_id + 1
    assert BertConfig.from_hf({k: v for k, v in config.items() if k != "pad_token_id"}).pad_token_id == 1
