"""A tiny MPNet, built from numpy seeds alone, and what torch makes of it."""

from __future__ import annotations

from typing import Any

import deberta_reference
import numpy as np

MPNET = {
    "model_type": "mpnet",
    "vocab_size": 70,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 40,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "relative_attention_num_buckets": 32,
}
CONFIGS = {"mpnet": MPNET}  # the inputs have 17 tokens: more than the 8 exact buckets before a query
tensors = deberta_reference.tensors


def batch(config: dict[str, Any], seed: int = 1) -> dict[str, np.ndarray]:
    """Padded token ids, masks and token types [6, 17], and the direction [6, 17, D] in which the output is measured."""
    return deberta_reference.batch({**config, "type_vocab_size": 1}, seed)


def torch_results(config: dict[str, Any], weights: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> dict:
    """{"hidden" [L + 1, B, T, D], "grads" {name: array} of the sum of the last along "direction"}.

    Computed in float64 and rounded to float32 at the end.
    """
    import torch
    import transformers

    model = transformers.MPNetModel(deberta_reference.torch_config(config), add_pooling_layer=False).eval()
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()}, strict=True)
    model.double()
    ids, mask = (torch.tensor(inputs[name]).long() for name in ("input_ids", "attention_mask"))
    hidden = model(ids, mask, output_hidden_states=True).hidden_states
    (hidden[-1] * torch.tensor(inputs["direction"]).double()).sum().backward()
    return {
        "hidden": torch.stack(hidden).detach().float().numpy(),
        "grads": {name: parameter.grad.float().numpy() for name, parameter in model.named_parameters()},
    }
