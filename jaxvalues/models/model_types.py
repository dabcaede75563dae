"""Families of `model_type`, the name that a config.json gives its architecture."""

from __future__ import annotations

ROBERTA = ("roberta", "xlm-roberta")  # BERT's encoder, with other positions and another head
QWEN = ("qwen2", "qwen3")
GEMMA = ("gemma2", "gemma3_text")  # norms plus one, four of them in a layer, scaled word vectors
LLAMA = ("llama", "mistral", *QWEN, *GEMMA)  # one decoder with options
CAUSAL = ("gpt2", *LLAMA)  # a token sees those up to itself
