"""Tiny BERT and RoBERTa cases, built from numpy seeds alone, and what torch makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np

SIZES = {
    "vocab_size": 70,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 40,
    "hidden_act": "gelu",
}
CONFIGS = {
    "bert": {**SIZES, "model_type": "bert", "type_vocab_size": 2, "pad_token_id": 0, "layer_norm_eps": 1e-12},
    "roberta": {**SIZES, "model_type": "roberta", "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5},
}
NUM_LABELS = 20
LENGTHS = (17, 12, 5, 1, 16, 9)  # real tokens in each row of T = 17


def tensors(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under Hugging Face's names (no prefix); RandomState streams never change."""
    d, f = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], d),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], d),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], d),
        "embeddings.LayerNorm": d,
    }
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        shapes |= {f"{layer}.attention.{name}.weight": (d, d) for name in ("self.query", "self.key", "self.value")}
        shapes |= {f"{layer}.attention.output.dense.weight": (d, d), f"{layer}.attention.output.LayerNorm": d}
        shapes |= {f"{layer}.intermediate.dense.weight": (f, d), f"{layer}.output.dense.weight": (d, f)}
        shapes |= {f"{layer}.output.LayerNorm": d}
    random = np.random.RandomState(seed)
    made = {}
    for name, shape in shapes.items():
        if name.endswith("LayerNorm"):
            made[f"{name}.weight"] = 1 + 0.2 * random.standard_normal(shape)
            made[f"{name}.bias"] = 0.2 * random.standard_normal(shape)
        else:
            made[name] = 0.15 * random.standard_normal(shape)
            if "embeddings" not in name:
                made[name.replace("weight", "bias")] = 0.1 * random.standard_normal(shape[0])
    return {name: array.astype(np.float32) for name, array in made.items()}


def batch(config: dict[str, Any], seed: int = 1) -> dict[str, np.ndarray]:
    """Padded token ids and masks [6, 17], token types, labels [6, 20] and a linear head."""
    random = np.random.RandomState(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    mask = (np.arange(shape[1]) < np.array(LENGTHS)[:, None]).astype(np.int32)
    ids = np.where(mask, random.randint(5, config["vocab_size"], shape), config["pad_token_id"])
    return {
        "input_ids": ids.astype(np.int32),
        "attention_mask": mask,
        "token_type_ids": random.randint(0, config["type_vocab_size"], shape).astype(np.int32) * mask,
        "labels": (random.random_sample((shape[0], NUM_LABELS)) < 0.2).astype(np.float32),
        "kernel": 0.2 * random.standard_normal((config["hidden_size"], NUM_LABELS)).astype(np.float32),
    }


def torch_model(config: dict[str, Any], weights: dict[str, np.ndarray]) -> Any:
    """The transformers model with these weights, in evaluation mode."""
    import torch
    import transformers

    names = {"bert": ("BertConfig", "BertModel"), "roberta": ("RobertaConfig", "RobertaModel")}[config["model_type"]]
    make_config, make_model = (getattr(transformers, name) for name in names)
    settings = {key: value for key, value in config.items() if key != "model_type"}
    model = make_model(make_config(**settings), add_pooling_layer=False).eval()
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()}, strict=True)
    return model


def torch_results(config: dict[str, Any], weights: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> dict:
    """{"hidden" [L + 1, B, T, D], "logits" [B, 20], "loss", "grads" {name: array}}: CLS, linear head, mean BCE.

    Computed in float64 and rounded to float32 at the end, so that what differs is this package's rounding alone.
    """
    import torch

    model = torch_model(config, weights).double()
    given = {name: torch.tensor(array).double() for name, array in inputs.items()}
    ids, mask, types = (given[name].long() for name in ("input_ids", "attention_mask", "token_type_ids"))
    hidden = model(ids, mask, types, output_hidden_states=True).hidden_states
    logits = hidden[-1][:, 0] @ given["kernel"]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, given["labels"])
    loss.backward()
    return {
        "hidden": torch.stack(hidden).detach().float().numpy(),
        "logits": logits.detach().float().numpy(),
        "loss": loss.item(),
        "grads": {name: parameter.grad.float().numpy() for name, parameter in model.named_parameters()},
    }


def assert_close(actual: Any, expected: Any, relative: float = 1e-5, floor: float = 0.0, name: str = "") -> None:
    """The largest difference is at most `relative` of the largest expected magnitude, or `floor`."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{name}: {actual.shape} against {expected.shape}"
    error, limit = np.abs(actual - expected).max(), max(relative * np.abs(expected).max(), floor)
    assert error <= limit, f"{name}: differs by {error:.2e}, allowed {limit:.2e}"
