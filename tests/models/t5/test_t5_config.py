"""T5's config: which config.json it refuses, and why."""

from __future__ import annotations

import pytest
from t5_reference import CONFIGS

from jaxvalues.errors import UserError
from jaxvalues.models.t5.config import T5Config


def test_unsupported_and_missing_settings_are_errors():
    config = CONFIGS["t5-v1.1"]
    for change, message in (
        ({"feed_forward_proj": "gated-x"}, "activation 'x' is not supported"),
        ({"feed_forward_proj": "very-gated-gelu"}, "feed_forward_proj = 'very-gated-gelu' is not supported"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder = False is not supported for t5 models, only True"),
        ({"relative_attention_max_distance": 5}, "num_buckets 10 in config.json must lie between 4 and twice"),
        (
            {"d_kv": None, "num_layers": None, "num_decoder_layers": None},
            "the t5 model lacks d_kv, num_layers, num_decoder_layers$",
        ),
    ):
        with pytest.raises(UserError, match=message):
            T5Config.from_hf(config | change)
    with pytest.raises(UserError, match=r"the t5 model lacks vocab_size, d_model, d_kv and 4 more$"):
        T5Config.from_hf({"model_type": "t5"})
