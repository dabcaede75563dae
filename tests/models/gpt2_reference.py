"""Tiny GPT-2 cases, built from numpy seeds alone, and what torch makes of them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxvalues.models import CausalLM, abstract_model, build_causal_lm
from jaxvalues.models.checkpoints.conversion import to_params, to_tensors
from jaxvalues.models.gpt2.checkpoint import TABLE
from jaxvalues.models.loading import abstract_params

CONFIG = {
    "model_type": "gpt2",
    "vocab_size": 70,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 40,
}
LENGTHS = (17, 12, 5, 1, 16, 9)  # real tokens in each row of T = 17, in every second row on the right


def tensors(config: dict[str, Any] = CONFIG, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under Hugging Face's names (no prefix); RandomState streams never change."""
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract_model(config, scan=False)[1])
    named = to_tensors(shapes, TABLE)
    random = np.random.RandomState(seed)
    made = {name: 0.15 * random.standard_normal(named[name].shape) for name in sorted(named)}
    return {name: (x + (".ln_" in f".{name}" and "weight" in name)).astype(np.float32) for name, x in made.items()}


def model(config: dict[str, Any] = CONFIG, seed: int = 0, **options: Any) -> tuple[CausalLM, Any]:
    """The language model with these weights, `(module, params)`."""
    module = build_causal_lm(config, **{"scan": False, **options})
    return module, to_params(tensors(config, seed), TABLE.under("encoder"), abstract_params(module))


def pad(rows: list[list[int]], sides: str, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask [B, T] of rows padded at "l"eft or "r"ight, as `sides` says for each in turn."""
    ids, mask = np.zeros((2, len(rows), tokens), np.int32)
    for i, row in enumerate(rows):
        at = slice(tokens - len(row), tokens) if sides[i % len(sides)] == "l" else slice(0, len(row))
        ids[i, at], mask[i, at] = row, 1
    return ids, mask


def batch(config: dict[str, Any] = CONFIG, seed: int = 1) -> dict[str, np.ndarray]:
    """Ids, masks and positions [6, 17], and the direction [6, 17, V] in which the real tokens' logits are measured."""
    random = np.random.RandomState(seed)
    rows = [list(random.randint(0, config["vocab_size"], length)) for length in LENGTHS]
    ids, mask = pad(rows, "rl", max(LENGTHS))
    direction = random.standard_normal((*ids.shape, config["vocab_size"])) * mask[..., None]
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": np.maximum(np.cumsum(mask, axis=1) - 1, 0),
        "direction": direction.astype(np.float32),
    }


def torch_model(config: dict[str, Any], weights: dict[str, np.ndarray]) -> Any:
    """The transformers model with these weights, in evaluation mode."""
    import torch
    import transformers

    settings = {key: value for key, value in config.items() if key != "model_type"}
    settings |= {"bos_token_id": None, "eos_token_id": None}
    network = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings)).eval()
    network.transformer.load_state_dict({name: torch.tensor(array) for name, array in weights.items()}, strict=True)
    return network


def torch_results(config: dict[str, Any], weights: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> dict:
    """{"hidden" [L + 1, B, T, D], "logits" [B, T, V] (both 0 on padding), "grads" {name: array}}, the gradients of the
    mean of the logits along "direction". Computed in float64 and rounded to float32 at the end.
    """
    import torch

    network = torch_model(config, weights).double()
    given = {name: torch.tensor(inputs[name]).long() for name in ("input_ids", "attention_mask", "position_ids")}
    outputs = network(**given, output_hidden_states=True)
    (outputs.logits * torch.tensor(inputs["direction"]).double()).mean().backward()
    real = given["attention_mask"][..., None]
    return {
        "hidden": (torch.stack(outputs.hidden_states) * real).detach().float().numpy(),
        "logits": (outputs.logits * real).detach().float().numpy(),
        "grads": {name: p.grad.float().numpy() for name, p in network.transformer.named_parameters()},
    }
