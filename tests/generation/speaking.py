"""Tiny language models with a tokenizer and a chat template, and prompts of mixed lengths for them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import tiny
from chat_templates import SMOLLM2, chat_tokenizer

import jaxvalues
from jaxvalues.generation import LanguageModel
from jaxvalues.models import init_causal_lm, init_t5, save_causal_lm, save_t5
from jaxvalues.tuning import Bound

PROMPTS = ["Is it based", "Given premise and conclusion. Is it based on the human value Yes", "No", "the assistant"]
V = 338  # the tokenizer's size
SIZES = {"vocab_size": V, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 1}
CONFIGS = {
    "gpt2": {**tiny.GPT2, **SIZES},
    "t5": {**tiny.T5, **SIZES, "tie_word_embeddings": False},  # otherwise it repeats itself
}


@functools.cache
def tokenizer() -> Any:
    """The tokenizer of the tiny models."""
    return chat_tokenizer(SMOLLM2)


@functools.cache
def network(name: str = "gpt2") -> tuple[Any, Any]:
    """A module and its parameters, loud enough that every step has a clear winner."""
    init = init_causal_lm if name == "gpt2" else init_t5
    module, params = init(CONFIGS[name], 0, scan=False)
    scale = 8.0 if name == "gpt2" else 2.0
    return module, jax.tree.map(lambda x: scale * x if x.ndim > 1 else x, params)


def save(folder: Path, name: str = "gpt2", **changes: Any) -> Path:
    """The checkpoint folder of a tiny model; `changes` are made to its config.json."""
    _, params = network(name)
    (save_causal_lm if name == "gpt2" else save_t5)(folder, {**CONFIGS[name], **changes}, params)
    tokenizer().save_pretrained(folder)
    return folder


@functools.cache
def language_model(name: str = "gpt2", ends: tuple[int, ...] = (), batch_size: int = 4) -> LanguageModel:
    """A tiny model in float32. Its programs are compiled once for all tests of a module."""
    module, params = network(name)
    return LanguageModel(module, Bound(params), tokenizer(), ends, batch_size)


def load(folder: Path, **options: Any) -> LanguageModel:
    return jaxvalues.load_language_model(folder, **options)
