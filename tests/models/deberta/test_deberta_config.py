"""DeBERTa's config: published ones give networks of the right size, and unsupported ones are errors."""

from __future__ import annotations

import jax
import pytest
from deberta_reference import V1, V3, torch_config

from jaxvalues.errors import UserError
from jaxvalues.models import abstract_model
from jaxvalues.models.deberta.config import DebertaConfig


def test_published_configs_are_read():
    base = {"pos_att_type": "p2c|c2p", "relative_attention": True, "position_biased_input": False, "hidden_size": 768}
    base |= {"num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 128100}
    base |= {"max_relative_positions": -1, "max_position_embeddings": 512, "type_vocab_size": 0}
    v3 = {**base, "model_type": "deberta-v2", "position_buckets": 256, "norm_rel_ebd": "layer_norm"}
    v3 |= {"share_att_key": True}

    def count(config):
        return sum(leaf.size for leaf in jax.tree.leaves(abstract_model(config)[1]))

    assert count(v3) == 183_831_552
    xlarge = v3 | {"hidden_size": 1536, "num_hidden_layers": 24, "num_attention_heads": 24, "intermediate_size": 6144}
    xlarge |= {"conv_kernel_size": 3, "conv_act": "gelu", "attention_head_size": 64}
    v1 = {**base, "model_type": "deberta", "vocab_size": 50265, "position_buckets": 256}  # v1 knows no buckets
    assert DebertaConfig.from_hf(v1).relative_rows == 1024
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    for config in (v3, xlarge, v1):
        with torch.device("meta"):
            theirs = transformers.AutoModel.from_config(torch_config(config))
        assert count(config) == sum(parameter.numel() for parameter in theirs.parameters())


def test_unsupported_settings_are_errors():
    for config, change, message in (
        (V1, {"talking_head": True}, "talking_head = True is not supported for deberta models, only False"),
        (
            V1,
            {"pos_att_type": "c2p|p2p"},
            r"pos_att_type = 'c2p\|p2p' is not supported for deberta models, only c2p, p2c",
        ),
        (V3, {"attention_head_size": 32}, "attention_head_size = 32 is not supported for deberta-v2 models, only 16"),
        (V3, {"norm_rel_ebd": "rms"}, "norm_rel_ebd = 'rms' is not supported for deberta-v2 models, only 'none' or"),
        (V3, {"conv_kernel_size": 2}, "conv_kernel_size = 2 is not supported"),
        (V3, {"conv_act": "x"}, "activation 'x' is not supported"),
    ):
        with pytest.raises(UserError, match=message):
            DebertaConfig.from_hf(config | change)
