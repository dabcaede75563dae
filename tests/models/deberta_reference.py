"""Tiny DeBERTas of every kind and masked language models, from numpy seeds alone, and what torch makes of them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from bert_reference import CONFIGS as BERTS
from bert_reference import batch as bert_batch

from jaxvalues.models import abstract_model, build_masked_lm
from jaxvalues.models.architectures import ARCHITECTURES
from jaxvalues.models.checkpoints.conversion import to_tensors
from jaxvalues.models.heads import masked_lm as mlm
from jaxvalues.models.loading import abstract_params

SIZES = {
    "vocab_size": 70,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 40,
    "layer_norm_eps": 1e-7,
    "pad_token_id": 0,
    "relative_attention": True,
    "position_biased_input": False,
    "type_vocab_size": 0,
}
V1 = {**SIZES, "model_type": "deberta", "pos_att_type": "c2p|p2c"}
V3 = {
    **SIZES,
    "model_type": "deberta-v2",
    "pos_att_type": "p2c|c2p",
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
}
# The inputs have 17 tokens: more than the exact buckets (4) of all below, and more than the table of two of them spans.
CONFIGS = {
    "deberta": V1,
    "deberta-short-span": {
        **V1,
        "pos_att_type": ["c2p"],
        "max_relative_positions": 9,
        "position_biased_input": True,
        "type_vocab_size": 2,
    },
    "deberta-v3": {**V3, "max_relative_positions": 12},
    "deberta-v2-xlarge": {**V3, "conv_kernel_size": 3, "conv_act": "gelu", "conv_groups": 2, "attention_head_size": 16},
    "deberta-v2-separate": {
        **V3,
        "share_att_key": False,
        "norm_rel_ebd": "none",
        "position_buckets": -1,
        "position_biased_input": True,
        "embedding_size": 32,
        "type_vocab_size": 2,
    },
}


def tensors(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under Hugging Face's names (no prefix); RandomState streams never change."""
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract_model(config, scan=False)[1])
    named = to_tensors(shapes, ARCHITECTURES[config["model_type"]].table)
    random = np.random.RandomState(seed)
    made = {name: 0.15 * random.standard_normal(named[name].shape) for name in sorted(named)}
    return {name: (x + name.endswith("Norm.weight")).astype(np.float32) for name, x in made.items()}


def batch(config: dict[str, Any], seed: int = 1) -> dict[str, np.ndarray]:
    """Padded token ids, masks and token types [6, 17], and the direction [6, 17, D] in which the output is measured."""
    inputs = bert_batch({**config, "type_vocab_size": max(config["type_vocab_size"], 1)}, seed)
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    direction = np.random.RandomState(seed).standard_normal((*inputs["input_ids"].shape, config["hidden_size"]))
    return {**inputs, "direction": (direction * inputs["attention_mask"][..., None]).astype(np.float32)}


def torch_config(config: dict[str, Any]) -> Any:
    """The transformers config."""
    import transformers

    settings = {key: value for key, value in config.items() if key != "model_type"}
    return transformers.AutoConfig.for_model(config["model_type"], **settings)


def torch_results(config: dict[str, Any], weights: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> dict:
    """{"hidden" [L + 1, B, T, D] (0 on padding), "grads" {name: array} of the sum of the last along "direction"}.

    Computed in float64 and rounded to float32 at the end.
    """
    import torch
    import transformers

    model = transformers.AutoModel.from_config(torch_config(config)).eval()
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()}, strict=True)
    model.double()
    ids, mask, types = (torch.tensor(inputs[name]).long() for name in ("input_ids", "attention_mask", "token_type_ids"))
    hidden = model(ids, mask, types, output_hidden_states=True).hidden_states
    (hidden[-1] * torch.tensor(inputs["direction"]).double()).sum().backward()
    grads = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in model.named_parameters()}
    return {
        "hidden": (torch.stack(hidden) * mask[..., None]).detach().float().numpy(),
        "grads": {name: grad.float().numpy() for name, grad in grads.items()},
    }


MASKED_LM = {
    "bert": BERTS["bert"],
    "roberta": BERTS["roberta"],
    "deberta": {**CONFIGS["deberta"], "legacy": False},
    "deberta-v3": {**CONFIGS["deberta-v3"], "legacy": True},
    "deberta-v3-new": {**CONFIGS["deberta-v3"], "legacy": False},
    "mpnet": {**BERTS["roberta"], "model_type": "mpnet"},
    "deberta-v2-separate": CONFIGS["deberta-v2-separate"],  # word vectors narrower than the network
}


def masked_lm_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of a whole masked language model, of any kind, as transformers' own files name them."""
    shapes = abstract_params(build_masked_lm(config, scan=False))
    named = mlm.masked_lm_tensors(config, jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes))
    random = np.random.RandomState(seed)
    made = {name: 0.15 * random.standard_normal(named[name].shape) for name in sorted(named)}
    return {name: (x + name.lower().endswith("norm.weight")).astype(np.float32) for name, x in made.items()}


def masked_lm_logits(config: dict[str, Any], weights: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> Any:
    """transformers' logits [B, T, V] computed in float64, and the model itself."""
    import torch
    import transformers

    model = transformers.AutoModelForMaskedLM.from_config(torch_config(config)).eval()
    report = model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()}, strict=False)
    tied = [name for name in report.missing_keys if "decoder" not in name]
    assert not tied, f"not given: {tied}"
    assert not report.unexpected_keys
    model.tie_weights()
    model.double()
    with torch.no_grad():
        names = ("input_ids", "attention_mask", *(["token_type_ids"] if config["model_type"] != "mpnet" else []))
        logits = model(**{name: torch.tensor(inputs[name]).long() for name in names}).logits
    return logits.float().numpy(), model
