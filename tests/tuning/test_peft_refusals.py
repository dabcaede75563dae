"""Adapters that are not as PEFT writes them for a network here, and what PEFT cannot express: one sentence each."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from peft_cases import HF_CONFIGS, RANK, P, draw, settings
from safetensors.numpy import load_file, save_file

from jaxvalues.errors import ConfigError, UserError
from jaxvalues.models.t5.model import Prefix, Prompt
from jaxvalues.tuning.peft_folder import CONFIG, WEIGHTS, read_adapter_config, save_adapter
from jaxvalues.tuning.peft_format import PeftTarget, from_peft, to_peft

GPT2, T5, ROBERTA = (PeftTarget({**HF_CONFIGS[kind], "model_type": kind}) for kind in ("gpt2", "t5", "roberta"))


@pytest.mark.parametrize(
    ("method", "target", "hook", "message"),
    [
        ("prompt", T5, {"prompt": Prompt(draw(P, 64), draw(P, 64))}, r"only a run with tuning.sides=\[encoder\]"),
        ("prefix", T5, {"prefix": Prefix(cross=draw(3, 2, P, 4, 24))}, r"only a run with tuning.sides=\[decoder\]"),
        ("prefix", ROBERTA, {"prefix": draw(2, 2, P, 4, 16)}, "tuning.method prefix on a roberta model differs from"),
        (
            "bitfit",
            GPT2,
            {},
            "tuning.method bitfit has no equivalent in PEFT, only prompt, p_tuning, prefix, lora, ia3",
        ),
    ],
)
def test_what_peft_cannot_express_is_said(method, target, hook, message):
    with pytest.raises(ConfigError, match=message):
        to_peft(settings(method), target, {method: {}}, **hook)
    with pytest.raises(ConfigError, match=r"tuning.method lora: a PEFT adapter cannot contain .*: head, verbalizer"):
        to_peft(settings("lora"), target, {"lora": {}, "verbalizer": {}, "head": {}})


@pytest.fixture
def adapter(tmp_path) -> Path:
    """A LoRA of the first layer of a GPT-2."""
    leaf = {"a": draw(64, RANK), "b": draw(RANK, 192)}
    tree = {"encoder": {"layers": {"0": {"attention": {"qkv": leaf}}}}}
    save_adapter(tmp_path, *to_peft(settings("lora"), GPT2, {"lora": tree}))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_rslora": True}, f"{CONFIG}: use_rslora = True is not supported, expected an adapter without it"),
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"bias": "all"}, "bias = 'all' is not supported"),
        ({"rank_pattern": {"c_attn": 2}}, "rank_pattern = .* is not supported"),
        ({"a_setting_of_next_year": 1}, "a_setting_of_next_year = 1 is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa' is not supported, because it changes"),
        ({"peft_type": "VERA"}, "peft_type VERA is not supported, only PROMPT_TUNING, P_TUNING, PREFIX_TUNING, LORA"),
        ({"r": None}, "the setting r is missing$"),
        ({"r": "x"}, "`r` is 'x', expected an integer$"),
        ({"r": 0}, "`r` is 0, expected a number above 0$"),
        ({"lora_alpha": [1]}, r"`lora_alpha` is \[1\], expected an integer or a number$"),
        (
            {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 5},
            "expected only prompt_embeddings with num_virtual_tokens = 5",
        ),
        (
            {"peft_type": "IA3"},
            "no layer of the gpt2 model has the tensors base_model.model.transformer.h.0.attn.c_at",
        ),
    ],
)
def test_a_setting_that_we_have_not_is_said(adapter, change, message):
    content = read_adapter_config(adapter)
    (adapter / CONFIG).write_text(json.dumps(content | change))
    with pytest.raises(UserError, match=message):
        from_peft(adapter, GPT2)


def test_a_folder_that_is_no_whole_adapter_is_said(adapter):
    tensors = load_file(adapter / WEIGHTS)
    name = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
    for change, message in (
        ({name.replace("_A", "_B"): None}, "one of the two matrices is missing for encoder/layers/0/attention/qkv"),
        (
            {name.replace("h.0", "h.2"): tensors[name]},
            r"has the tensors base_model.model.transformer.h.2.attn.c_attn.lora_A",
        ),
        (dict.fromkeys(tensors), "it has no tensors"),
    ):
        save_file({k: v for k, v in (tensors | change).items() if v is not None}, adapter / WEIGHTS)
        with pytest.raises(UserError, match=message):
            from_peft(adapter, GPT2)
    save_file(tensors | {name: tensors[name].astype(np.int32)}, adapter / WEIGHTS)
    message = f"{WEIGHTS}: the adapter has tensors of another type than floats: {name} (int32)"
    with pytest.raises(UserError, match=re.escape(message)):
        from_peft(adapter, GPT2)
    (adapter / WEIGHTS).write_bytes(b"not this")
    with pytest.raises(UserError, match=f"{WEIGHTS}: the file is not a complete safetensors file"):
        from_peft(adapter, GPT2)
    (adapter / WEIGHTS).rename(adapter / "adapter_model.bin")
    with pytest.raises(UserError, match=r"has only adapter_model.bin, expected adapter_model.safetensors: load it"):
        from_peft(adapter, GPT2)
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(UserError, match=re.escape(f"{adapter}: the folder has no {WEIGHTS}")):
        from_peft(adapter, GPT2)
    (adapter / CONFIG).write_text("{")
    with pytest.raises(UserError, match=f"{CONFIG}: is not valid JSON"):
        from_peft(adapter, GPT2)
    (adapter / CONFIG).unlink()
    with pytest.raises(UserError, match=f"{CONFIG}: no such file, expected an adapter in PEFT's format"):
        from_peft(adapter, GPT2)


def test_scales_of_the_other_side_are_said(tmp_path):
    """PEFT lets a user say which layers' inputs are scaled; here that is a matter of the layer."""
    tree = {"encoder": {"layers": {"0": {"mlp": {"down": {"scale": draw(256)}}}}}}
    content, tensors = to_peft(settings("ia3"), GPT2, {"ia3": tree})
    assert content["feedforward_modules"] == content["target_modules"] == ["transformer.h.0.mlp.c_proj"]
    save_adapter(tmp_path, content, {name: x.reshape(-1, 1) for name, x in tensors.items()})
    with pytest.raises(
        UserError, match=r"feedforward_modules: .*c_proj.ia3_l has the shape \[256, 1\], but .* the layer's input"
    ):
        from_peft(tmp_path, GPT2)


def test_vectors_of_another_shape_are_said(tmp_path):
    prefix = Prefix(decoder=draw(3, 2, P, 4, 24))
    content, tensors = to_peft(settings("prefix"), T5, {}, prefix=prefix)
    for change, message in (
        ({"num_layers": 2}, "num_layers is 2, expected at least 3"),
        ({"num_layers": 5}, r"prompt_embeddings \[3, 1152\] cannot be keys and values of 5 layers and 4 heads"),
        ({"num_virtual_tokens": 6}, r"= 6 rows, but it has prompt_embeddings \[3, 1152\]"),
    ):
        save_adapter(tmp_path, content | change, tensors)
        with pytest.raises(UserError, match=message):
            from_peft(tmp_path, T5)
    save_adapter(tmp_path, content, tensors)
    with pytest.raises(ConfigError, match="method prefix on a roberta model differs from PEFT's"):
        from_peft(tmp_path, ROBERTA)


def test_adapters_of_half_precision_are_read(adapter):
    import ml_dtypes

    tensors = load_file(adapter / WEIGHTS)
    save_file({name: x.astype(ml_dtypes.bfloat16) for name, x in tensors.items()}, adapter / WEIGHTS)
    leaf = from_peft(adapter, GPT2).trainable["lora"]["encoder"]["layers"]["0"]["attention"]["qkv"]["a"]
    assert leaf.dtype == np.float32
    np.testing.assert_allclose(leaf, draw(64, RANK), rtol=2**-8)
