"""Tiny networks of the Llama family, built from numpy seeds alone, and what torch makes of them."""

from __future__ import annotations

from typing import Any
from unittest import mock

import jax
import numpy as np
from gpt2_reference import batch as gpt2_batch

from jaxvalues.models import CausalLM, build_causal_lm
from jaxvalues.models.checkpoints.conversion import to_params, to_tensors
from jaxvalues.models.heads.causal_lm import causal_lm_table
from jaxvalues.models.loading import abstract_params

SIZES = {
    "vocab_size": 70,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 20,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**SIZES, "model_type": "llama", "rope_parameters": LLAMA3},
    "smollm": {
        **SIZES, "model_type": "llama", "num_key_value_heads": 1, "tie_word_embeddings": True, "attention_bias": True,
        "mlp_bias": True, "rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 3.0},
    },
    "mistral": {**SIZES, "model_type": "mistral", "sliding_window": 5, "head_dim": 24},
    "qwen2": {
        **SIZES, "model_type": "qwen2", "tie_word_embeddings": True, "use_sliding_window": True, "sliding_window": 6,
        "max_window_layers": 1, "rope_scaling": {"type": "dynamic", "factor": 4.0},
    },
    "qwen3": {**SIZES, "model_type": "qwen3", "head_dim": 24, "rope_theta": 1e6},
    "gemma2": {
        **SIZES, "model_type": "gemma2", "head_dim": 24, "sliding_window": 5, "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0,
    },
    "gemma3": {
        **SIZES, "model_type": "gemma3_text", "head_dim": 24, "sliding_window": 5, "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 20, "rope_theta": 1e4, "rope_local_base_freq": 100.0,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
}  # fmt: skip
STORED = ("llama", "gemma3")  # torch's numbers are in golden/
batch = gpt2_batch  # of the same sizes


def tensors(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of a language model under Hugging Face's names; RandomState streams never change."""
    table = causal_lm_table(config["model_type"])
    module = build_causal_lm(config, scan=False)
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract_params(module))
    named = {_full(name): array for name, array in to_tensors(shapes, table).items()}
    random = np.random.RandomState(seed)
    ones = "gemma" not in config["model_type"]
    made = {name: 0.15 * random.standard_normal(named[name].shape) for name in sorted(named)}
    return {name: (x + (ones and "norm" in name)).astype(np.float32) for name, x in made.items()}


def _full(name: str) -> str:
    return name if name.startswith("lm_head") else f"model.{name}"


def model(config: dict[str, Any], seed: int = 0, **options: Any) -> tuple[CausalLM, Any]:
    """The language model with these weights, `(module, params)`."""
    module = build_causal_lm(config, **{"scan": False, **options})
    return module, to_params(tensors(config, seed), causal_lm_table(config["model_type"]), abstract_params(module))


def torch_model(config: dict[str, Any], weights: dict[str, np.ndarray]) -> Any:
    """The transformers model with these weights, in evaluation mode."""
    import torch
    import transformers

    settings = {key: value for key, value in config.items() if key != "model_type"}
    settings |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    made = transformers.AutoConfig.for_model(config["model_type"], **settings)
    network = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="eager").eval()
    missing, unexpected = network.load_state_dict(
        {name: torch.tensor(array) for name, array in weights.items()}, strict=False
    )
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    network.tie_weights()
    return network


def torch_results(config: dict[str, Any], weights: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> dict:
    """{"hidden" [L + 1, B, T, D], "logits" [B, T, V] (both 0 on padding), "grads" {name: array}}, the gradients of the
    mean of the logits along "direction". Computed in float64 and rounded to float32 at the end.
    """
    import torch

    network = torch_model(config, weights).double()
    given = {name: torch.tensor(inputs[name]).long() for name in ("input_ids", "attention_mask", "position_ids")}
    softmax = torch.nn.functional.softmax

    def in_float64(x: Any, dim: int, dtype: Any = None) -> Any:
        return softmax(x, dim=dim)  # transformers' is float32, to which the mask of a padded row is infinite

    with mock.patch("torch.nn.functional.softmax", in_float64):
        outputs = network(**given, output_hidden_states=True)
    (outputs.logits * torch.tensor(inputs["direction"]).double()).mean().backward()
    real = given["attention_mask"][..., None]
    return {
        "hidden": (torch.stack(outputs.hidden_states) * real).detach().float().numpy(),
        "logits": (outputs.logits * real).detach().float().numpy(),
        "grads": {name: p.grad.float().numpy() for name, p in network.named_parameters()},
    }
