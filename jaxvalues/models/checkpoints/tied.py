"""Whether the output matrix of a checkpoint is its word embeddings, whatever its config.json says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxvalues.models.checkpoints.conversion import Table

_WORDS = "embeddings/word/embedding"


def word_names(table: Table) -> list[str]:
    """The names that the word embeddings may have in a checkpoint of this table."""
    (words,) = (rule.hf for rule in table.rules if rule.path.endswith(_WORDS))
    return [f"{prefix}{words}" for prefix in table.prefixes]


def is_own(tensors: Mapping[str, Any], output: str, words: Iterable[str]) -> bool:
    """Whether a checkpoint holds an output matrix of its own: `output` is there and differs from the word embeddings,
    which have one of the names `words`."""
    held = next((name for name in words if name in tensors), None)
    return held not in (None, output) and output in tensors and not np.array_equal(tensors[held], tensors[output])
