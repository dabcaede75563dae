"""Families of `model_type`, the name that a config.json gives its architecture."""

from __future__ import annotations

ROBERTA = ("roberta", "xlm-roberta")  # BERT's encoder, with other positions and another head
