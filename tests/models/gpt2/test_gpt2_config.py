"""GPT-2's config: its own names of the fields, its defaults, and which config.json it refuses."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest
from gpt2_reference import CONFIG

from jaxvalues.errors import UserError
from jaxvalues.models import init_causal_lm
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
        "embd_pdrop": "embd_pdrop = True in config.json, expected a rate",
        "activation_function": "activation_function = True in config.json, expected a word",
    }.items():
        with pytest.raises(UserError, match=message):
            GPT2Config.from_hf(CONFIG | {change: True})
    with pytest.raises(UserError, match=r"n_embd 64 is not a multiple of n_head 7 in config.json"):
        GPT2Config.from_hf(CONFIG | {"n_head": 7})
    with pytest.raises(UserError, match=r"config.json of the gpt2 model lacks hidden_size, num_hidden_layers"):
        GPT2Config.from_hf({k: v for k, v in CONFIG.items() if k not in ("n_embd", "n_layer")})


@pytest.mark.slow
def test_the_dropout_of_embeddings_is_their_own():
    """transformers has a rate for them, .1 where the file says nothing."""
    assert GPT2Config.from_hf(CONFIG | {"embd_pdrop": 0.3}).embd_pdrop == 0.3
    without = {key: value for key, value in CONFIG.items() if key != "embd_pdrop"} | {"resid_pdrop": 0.0}
    config = GPT2Config.from_hf(without)
    assert (config.hidden_dropout_prob, config.embd_pdrop) == (0.0, 0.1)
    assert config.with_dropout(None, 0.2).embd_pdrop == 0.1
    assert config.with_dropout(0.4, None).embd_pdrop == config.with_dropout(0.4, None).hidden_dropout_prob == 0.4
    module, params = init_causal_lm(without, 0, scan=False)
    run = functools.partial(module.apply, {"params": params}, jnp.ones((2, 8), jnp.int32), jnp.ones((2, 8), jnp.int32))
    assert jnp.any(run(deterministic=False, rngs={"dropout": jax.random.key(0)}) != run())


def test_a_gpt2_is_no_bert():
    assert not issubclass(GPT2Config, BertConfig)
    assert not hasattr(GPT2Config.from_hf(CONFIG), "type_vocab_size")
