"""Tiny T5 cases, built from numpy seeds alone, and what torch makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np

# Few buckets and a short reach: distances share buckets, and some lie beyond the last.
SIZES = {
    "model_type": "t5",
    "vocab_size": 70,
    "d_model": 64,
    "d_ff": 96,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 10,
    "relative_attention_max_distance": 12,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
CONFIGS = {
    "t5": {**SIZES, "d_kv": 16},  # as T5 1.0 published it, with no word of its feed-forward or of tying
    "t5-v1.1": {
        **SIZES,
        "d_kv": 24,  # four heads are wider than the network
        "num_decoder_layers": 3,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
}
LENGTHS = (17, 12, 5, 1, 16, 9)  # real tokens in each row of S = 17
DECODER_LENGTHS = (14, 3, 1, 8, 14, 2)  # and of T = 14


def tensors(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under Hugging Face's names; RandomState streams never change."""
    d, f, inner = config["d_model"], config["d_ff"], config["num_heads"] * config["d_kv"]
    gated = config.get("feed_forward_proj", "relu").startswith("gated")
    shapes: dict[str, Any] = {"shared.weight": (config["vocab_size"], d)}
    depths = {"encoder": config["num_layers"], "decoder": config.get("num_decoder_layers", config["num_layers"])}
    for side, layers in depths.items():
        parts = ["SelfAttention", *(["EncDecAttention"] if side == "decoder" else []), "DenseReluDense"]
        table = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        shapes |= {table: (config["relative_attention_num_buckets"], config["num_heads"])}
        for i in range(layers):
            for k, part in enumerate(parts):
                name = f"{side}.block.{i}.layer.{k}"
                if part == "DenseReluDense":
                    shapes |= {f"{name}.{part}.{wi}.weight": (f, d) for wi in (("wi_0", "wi_1") if gated else ("wi",))}
                    shapes |= {f"{name}.{part}.wo.weight": (d, f)}
                else:
                    shapes |= {f"{name}.{part}.{each}.weight": (inner, d) for each in "qkv"}
                    shapes |= {f"{name}.{part}.o.weight": (d, inner)}
                shapes |= {f"{name}.layer_norm.weight": (d,)}
        shapes |= {f"{side}.final_layer_norm.weight": (d,)}
    if not config.get("tie_word_embeddings", True):
        shapes["lm_head.weight"] = (config["vocab_size"], d)

    random = np.random.RandomState(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        noise = random.standard_normal(shape).astype(np.float32)
        if "norm" in name:
            return 1 + 0.2 * noise
        scales = {"shared.weight": 1.0, "lm_head.weight": 0.2}
        return noise * scales.get(name, 0.5 if "bias" in name else 0.1)

    return {name: draw(name, shape).astype(np.float32) for name, shape in shapes.items()}


def batch(config: dict[str, Any], seed: int = 1) -> dict[str, np.ndarray]:
    """Padded ids and masks of both sides, [6, 17] and [6, 14], and labels [6, 14]; one input is padded on the left."""
    random = np.random.RandomState(seed)

    def side(lengths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(lengths), max(lengths))
        mask = (np.arange(shape[1]) < np.array(lengths)[:, None]).astype(np.int32)
        return np.where(mask, random.randint(2, config["vocab_size"], shape), 0).astype(np.int32), mask

    (ids, mask), (decoder_ids, decoder_mask) = side(LENGTHS), side(DECODER_LENGTHS)
    ids[1], mask[1] = ids[1, ::-1], mask[1, ::-1]
    decoder_ids[:, 0] = config["decoder_start_token_id"]
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "decoder_input_ids": decoder_ids,
        "decoder_attention_mask": decoder_mask,
        "labels": random.randint(0, config["vocab_size"], decoder_ids.shape).astype(np.int32),
    }


def torch_model(config: dict[str, Any], weights: dict[str, np.ndarray]) -> Any:
    """The transformers model with these weights, in evaluation mode, computing in float64."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    settings = {key: value for key, value in config.items() if key != "model_type"}
    model = T5ForConditionalGeneration(T5Config(**settings, attn_implementation="eager")).eval()
    given = {name: torch.tensor(array) for name, array in weights.items()}
    if "lm_head.weight" in weights:  # transformers 5 ties it whatever the config says
        model.lm_head.weight = torch.nn.Parameter(given["lm_head.weight"])
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    model.load_state_dict(dict.fromkeys(copies, given["shared.weight"]) | given, strict=True)
    return model.double()


def torch_results(config: dict[str, Any], weights: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> dict:
    """{"hidden" [B, S, D] of the encoder, "logits" [B, T, V], "loss", "grads" {name: array}}: the mean negative log
    likelihood of the labels at real positions, in float64 and rounded at the end."""
    import torch

    model = torch_model(config, weights)
    given = {name: torch.tensor(array).long() for name, array in inputs.items()}
    labels = given.pop("labels")
    out = model(**given)
    real = given["decoder_attention_mask"].bool()
    loss = torch.nn.functional.cross_entropy(out.logits[real], labels[real])
    loss.backward()
    return {
        "hidden": out.encoder_last_hidden_state.detach().float().numpy(),
        "logits": out.logits.detach().float().numpy(),
        "loss": loss.item(),
        "grads": {name: parameter.grad.float().numpy() for name, parameter in model.named_parameters()},
    }
