"""GPT-2's config: its own names of the fields, its defaults, and which config.json it refuses."""

from __future__ import annotations

import pytest
from gpt2_reference import CONFIG

from jaxvalues.errors import UserError
from jaxvalues.models.bert.config import BertConfig
from jaxvalues.models.gpt2.config import GPT2Config


def test_configs():
    config = GPT2Config.from_hf(CONFIG)
    assert (config.intermediate_size, config.hidden_act, config.max_tokens) == (256, "gelu_new", 40)
    assert GPT2Config.from_hf(CONFIG | {"n_inner": 96, "resid_pdrop": 0.0}).hidden_dropout_prob == 0
    for change, message in {
        "scale_attn_by_inverse_layer_idx": "scale_attn_by_inverse_layer_idx = True is not supported for gpt2 models",
        "reorder_and_upcast_attn": "reorder_and_upcast_attn = True is not supported for gpt2 models, only False",
        "add_cross_attention": "add_cross_attention = True is not supported for gpt2 models, only False",
        "embd_pdrop": "embd_pdrop = True is not supported for gpt2 models, only 0.1",
        "activation_function": "activation 'True' is not supported, expected one of gelu",
    }.items():
        with pytest.raises(UserError, match=message):
            GPT2Config.from_hf(CONFIG | {change: True})
    with pytest.raises(UserError, match="hidden_size 64 is not a multiple of num_attention_heads 7"):
        GPT2Config.from_hf(CONFIG | {"n_head": 7})
    with pytest.raises(UserError, match=r"config.json of the gpt2 model lacks hidden_size, num_hidden_layers"):
        GPT2Config.from_hf({k: v for k, v in CONFIG.items() if k not in ("n_embd", "n_layer")})


def test_a_gpt2_is_no_bert():
    assert not issubclass(GPT2Config, BertConfig)
    assert not hasattr(GPT2Config.from_hf(CONFIG), "type_vocab_size")
