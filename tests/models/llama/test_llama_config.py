"""The configs of the Llama family: what each member has, and which config.json is refused."""

from __future__ import annotations

import numpy as np
import pytest
from llama_reference import CONFIGS, LLAMA3

from jaxvalues.errors import UserError
from jaxvalues.models.llama.config import LayerKind, LlamaConfig
from jaxvalues.models.llama.rotary import Rotary

LOCAL, GLOBAL = "sliding_attention", "full_attention"


def windows(config: dict) -> list[int | None]:
    c = LlamaConfig.from_hf(config)
    return [c.kinds[kind].window for kind in c.kind_of_layer]


def test_each_member_has_its_own():
    c = {kind: LlamaConfig.from_hf(config) for kind, config in CONFIGS.items()}
    assert [kind for kind in c if c[kind].qkv_bias] == ["smollm", "qwen2"]
    assert [kind for kind in c if c[kind].output_bias] == ["smollm"]
    assert [kind for kind in c if c[kind].qk_norm] == ["qwen3", "gemma3"]
    assert [kind for kind in c if c[kind].tie_word_embeddings] == ["smollm", "qwen2", "gemma2", "gemma3"]
    assert [kind for kind in c if c[kind].word_scale == 8] == ["gemma2", "gemma3"]
    assert c["gemma2"].query_scale == pytest.approx(20**-0.5)
    assert c["mistral"].query_scale == pytest.approx(24**-0.5)
    assert (c["gemma2"].hidden_act, c["llama"].hidden_act) == ("gelu_pytorch_tanh", "silu")
    assert windows(CONFIGS["mistral"]) == [5, 5]
    assert windows(CONFIGS["qwen2"]) == [None, 6]
    assert windows(CONFIGS["gemma2"]) == windows(CONFIGS["gemma3"]) == [5, None]
    local, everywhere = c["gemma3"].kinds
    assert local == LayerKind(5, Rotary(100.0))
    assert everywhere == LayerKind(None, Rotary(1e4, "linear", 4.0))
    assert len(c["gemma2"].kinds) == 2
    assert c["llama"].kinds == (LayerKind(None, Rotary(500.0, "llama3", 8.0, 1.0, 4.0, 20)),)


def test_what_transformers_leaves_out_has_its_defaults():
    sizes = {"vocab_size": 9, "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 8}
    llama = LlamaConfig.from_hf({**sizes, "model_type": "llama", "num_attention_heads": 4})
    assert (llama.head_dim, llama.num_key_value_heads, llama.max_tokens) == (16, 4, 2048)
    assert llama.kinds == (LayerKind(None, Rotary(10_000.0)),)
    assert not llama.tie_word_embeddings
    gemma = LlamaConfig.from_hf({**sizes, "model_type": "gemma3_text", "hidden_act": "relu"})
    assert (gemma.num_attention_heads, gemma.num_key_value_heads, gemma.head_dim) == (8, 4, 256)
    assert [kind.rotary.theta for kind in gemma.kinds] == [10_000.0]  # three layers are local
    assert (gemma.attn_logit_softcapping, gemma.final_logit_softcapping) == (None, None)
    assert gemma.hidden_act == "gelu_pytorch_tanh"  # of hidden_act transformers takes no notice
    gemma2 = LlamaConfig.from_hf({**sizes, "model_type": "gemma2"})
    assert (gemma2.attn_logit_softcapping, gemma2.final_logit_softcapping) == (50.0, 30.0)
    uncapped = LlamaConfig.from_hf({**sizes, "model_type": "gemma2", "final_logit_softcapping": None})
    assert (uncapped.attn_logit_softcapping, uncapped.final_logit_softcapping) == (50.0, None)
    mistral = {**sizes, "model_type": "mistral", "num_attention_heads": 8}
    assert windows(mistral) == [4096] * 3
    assert windows({**mistral, "sliding_window": None}) == [None] * 3
    assert windows({**mistral, "layer_types": [GLOBAL, LOCAL, GLOBAL]}) == [None, 4096, None]  # Ministral
    for model_type in ("mistral", "qwen2", "qwen3"):
        given = {**mistral, "model_type": model_type, "num_key_value_heads": None}
        assert LlamaConfig.from_hf(given).num_key_value_heads == 8
    assert windows({**CONFIGS["qwen2"], "use_sliding_window": False}) == [None, None]
    assert windows({**CONFIGS["qwen3"], "use_sliding_window": True, "layer_types": [LOCAL, GLOBAL]}) == [4096, None]


def test_rotary_positions_of_each_type_of_layer():
    nested = {GLOBAL: {"rope_theta": 7.0}, LOCAL: {"rope_type": "linear", "rope_theta": 3.0, "factor": 2.0}}
    config = {**CONFIGS["gemma3"], "rope_scaling": None, "rope_parameters": nested}
    local, everywhere = LlamaConfig.from_hf(config).kinds
    assert local.rotary == Rotary(3.0, "linear", 2.0)
    assert everywhere.rotary == Rotary(7.0)
    dynamic = LlamaConfig.from_hf(CONFIGS["qwen2"]).kinds[0].rotary
    assert dynamic == Rotary()  # within the positions that a network reads it changes nothing
    np.testing.assert_array_equal(dynamic.frequencies(4), np.float32([1, 0.01]))


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        (
            "llama",
            {"rope_parameters": {**LLAMA3, "rope_type": "yarn"}},
            "rope_type = 'yarn' is not supported for lla",
        ),
        (
            "llama",
            {"rope_parameters": {**LLAMA3, "factor": None}},
            "rope_type llama3 .* needs positive numbers for fa",
        ),
        ("llama", {"rope_parameters": {**LLAMA3, "low_freq_factor": 5.0}}, "low_freq_factor 5 is not below high_freq"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is not supported"),
        ("llama", {"rope_parameters": 3}, "rope_parameters = 3 in config.json, expected an object"),
        ("llama", {"rope_theta": -1.0, "rope_parameters": None}, "needs positive numbers for rope_theta"),
        ("llama", {"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ("llama", {"head_dim": 15}, "head_dim 15 in config.json is odd"),
        ("llama", {"hidden_act": "mish"}, "activation 'mish' is not supported"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is set .* of the llama model"),
        (
            "mistral",
            {"sliding_window": 0},
            "sliding_window = 0 in config.json, expected a positive whole number or n",
        ),
        ("qwen2", {"layer_types": [LOCAL]}, "layer_types in config.json, expected 2 entries, each sliding_attention"),
        ("qwen2", {"layer_types": [LOCAL, "linear_attention"]}, "layer_types in config.json, expected 2 entries"),
        (
            "qwen2",
            {"use_sliding_window": False, "layer_types": [LOCAL, GLOBAL]},
            "has sliding_attention, but use_sliding_window is false",
        ),
        ("llama", {"is_causal": False}, "is_causal = False is not supported for llama models, only True"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention = True is not supported for ge"),
        ("gemma2", {"sliding_window": None}, "of the gemma2 model has sliding_attention, but sliding_window is null"),
        ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar = 0 in config.json, expected a positive numb"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0 is not supported for gemma3_text"),
        ("gemma3", {"sliding_window_pattern": 0}, "sliding_window_pattern = 0 in config.json, expected a positive who"),
    ],
)
def test_what_is_not_supported_is_said(kind, change, said):
    with pytest.raises(UserError, match=said) as error:
        LlamaConfig.from_hf(CONFIGS[kind] | change)
    assert len(str(error.value)) < 300
