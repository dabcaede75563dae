"""Settings of a config.json: each that transformers reads is followed, harmless or refused; sizes that cannot be."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
from transformers import AutoConfig

from jaxvalues.config import ModelConfig
from jaxvalues.errors import UserError
from jaxvalues.models import check_config
from jaxvalues.models.architectures import ARCHITECTURES
from jaxvalues.models.gpt2.config import _NAMES
from jaxvalues.models.layers.validation import _NOT_FOLLOWED, _ONLY
from jaxvalues.models.t5.config import T5Config
from jaxvalues.run.base import find_base

CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {**tiny.ROBERTA, "model_type": "bert", "vocab_size": 90},
    "roberta": {**tiny.ROBERTA, "vocab_size": 90},
    "deberta": {**tiny.ROBERTA, "model_type": "deberta", "type_vocab_size": 0, "vocab_size": 90},
    "deberta-v2": {**tiny.DEBERTA_V2, "vocab_size": 90},
    "gpt2": {**tiny.GPT2, "vocab_size": 90},
    "t5": {**tiny.T5, "vocab_size": 90},
}
# Keys that networks of transformers read and that change no number here.
HARMLESS = {
    "_attn_implementation", "use_cache", "output_attentions", "output_hidden_states", "return_dict",  # how, not what
    "chunk_size_feed_forward",  # the same product in parts
    "num_labels", "problem_type", "classifier_dropout", "hidden_dropout", "cls_dropout", "summary_activation",
    "summary_first_dropout", "summary_last_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
    "pooler_dropout", "pooler_hidden_act", "pooler_hidden_size", "eos_token_id",  # heads, poolers and generation
    "legacy", "tie_word_embeddings",  # read by the heads
    "pad_token_id",  # of GPT-2: read by its classifier
    "hidden_size",  # of T5: another name of d_model
}  # fmt: skip
CHECKED = {"talking_head", "attention_head_size", "is_encoder_decoder", "dense_act_fn", "is_gated_act"}
CHECKED |= {"reorder_and_upcast_attn", "scale_attn_by_inverse_layer_idx"}
FAMILIES = {kind: (T5Config if kind == "t5" else ARCHITECTURES[kind].config) for kind in CONFIGS}


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_key_that_transformers_reads_is_known(kind: str) -> None:
    pytest.importorskip("torch")
    name = kind.replace("-", "_")
    source = inspect.getsource(importlib.import_module(f"transformers.models.{name}.modeling_{name}"))
    keys = set(re.findall(r"\bconfig\.([a-z_]+)", source)) | set(
        re.findall(r'getattr\(\w*\.?config, "([a-z_]+)"', source)
    )
    assert len(keys) > 15
    fields = {field.name for field in dataclasses.fields(FAMILIES[kind])} | (_NAMES.keys() if kind == "gpt2" else set())
    assert keys - fields - HARMLESS - CHECKED - _ONLY.keys() - _NOT_FOLLOWED.keys() == set()


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_a_file_leaves_out_is_as_in_transformers(kind: str) -> None:
    theirs, given = AutoConfig.for_model(**CONFIGS[kind]), CONFIGS[kind]
    ours = FAMILIES[kind].from_hf(given)
    turned = {ours: theirs for theirs, ours in _NAMES.items()} if kind == "gpt2" else {}
    compared = 0
    for field in dataclasses.fields(ours):
        name = turned.get(field.name, field.name)
        default = getattr(theirs, name, None)
        if default is None or name in ("pos_att_type", "model_type"):
            continue
        assert getattr(ours, field.name) == default, name
        compared += 1
    assert compared > 8


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is set in config.json of the .* model .heads were removed"),
        ({"quantization_config": {"bits": 4, "x": "y" * 900}}, "quantization_config is set .* weights are quantized"),
        ({"auto_map": {"AutoModel": "mine.Model"}}, "auto_map is set .* code of its own"),
        ({"tie_encoder_decoder": True}, "tie_encoder_decoder is set"),
        ({"is_decoder": True}, "is_decoder = True is not supported"),
        ({"add_cross_attention": True}, "add_cross_attention = True is not supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key' is not supported"),
    ],
)
def test_what_no_network_follows_is_refused(kind: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=rf"^here: {said}") as e:
        check_config(CONFIGS[kind] | change, "here")
    assert len(str(e.value)) < 300


def test_what_is_off_is_no_setting() -> None:
    off = {"pruned_heads": {}, "quantization_config": None, "auto_map": {}, "tie_encoder_decoder": False}
    for config in CONFIGS.values():
        check_config(config | off | {"chunk_size_feed_forward": 8, "use_cache": False, "is_decoder": False}, "here")


SIZES = {"gpt2": ("n_embd", "n_layer", "n_head"), "t5": ("d_model", "num_layers", "num_heads")}
BAD = [10**9, 10**400, 0, -1, "big", float("nan"), float("inf"), 2.5, True, [64], {}]


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("size", BAD, ids=lambda size: str(size)[:9])
def test_sizes_that_cannot_be_are_refused(kind: str, size: Any) -> None:
    """From arithmetic: nothing of that size is made."""
    for key in SIZES.get(kind, ("hidden_size", "num_hidden_layers", "num_attention_heads")):
        with pytest.raises(UserError, match=rf"^here: .*{key}\b.*config\.json") as e:
            check_config(CONFIGS[kind] | {key: size}, "here")
        assert len(str(e.value)) < 300
    with pytest.raises(UserError, match=r"^here: vocab_size = .* in config.json|vocab_size 1000000000 "):
        check_config(CONFIGS[kind] | {"vocab_size": size if size != 10**9 else 10**12}, "here")


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("bert", {"hidden_dropout_prob": 1.5}, "hidden_dropout_prob = 1.5 in config.json, expected a rate from 0"),
        ("bert", {"layer_norm_eps": float("nan")}, "layer_norm_eps = nan in config.json, expected a number"),
        ("gpt2", {"resid_pdrop": "0.1"}, "resid_pdrop = '0.1' in config.json, expected a rate from 0 to below 1"),
        ("gpt2", {"n_head": 7}, "n_embd 64 is not a multiple of n_head 7 in config.json"),
        ("t5", {"tie_word_embeddings": "no"}, "tie_word_embeddings = 'no' in config.json, expected true or false"),
        ("t5", {"dense_act_fn": "silu"}, "dense_act_fn = 'silu' is not supported for relu t5 models, only 'relu'"),
        ("deberta-v2", {"pos_att_type": 3}, "pos_att_type = 3 in config.json, expected c2p, p2c or both"),
        (
            "deberta-v2",
            {"position_biased_input": 1},
            "position_biased_input = 1 in config.json, expected true or false",
        ),
        ("deberta-v2", {"conv_kernel_size": 3, "conv_groups": 5}, "conv_groups = 5 is not supported"),
        ("bert", {"model_type": "bart"}, "model_type 'bart' is not supported, expected one of bert, .*, t5, xlm"),
        ("bert", {"model_type": ["bert"]}, r"model_type \['bert'\] is not supported"),
    ],
)
def test_other_settings_that_cannot_be(kind: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"^here: {said}"):
        check_config(CONFIGS[kind] | change, "here")


def test_a_run_names_the_file_before_it_reads_any_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["bert"] | {"hidden_size": 10**9}))
    with pytest.raises(UserError, match=rf"^{tmp_path}: hidden_size 1000000000, .* in config.json make a network of"):
        find_base(ModelConfig(path=str(tmp_path)), 0)
    with pytest.raises(
        UserError, match=r"^model.config: num_hidden_layers = 0 in config.json, expected a whole number"
    ):
        find_base(ModelConfig(config=tiny.ROBERTA | {"num_hidden_layers": 0}), 0)
