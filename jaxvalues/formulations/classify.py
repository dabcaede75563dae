"""`classify`: one pass of the encoder over a template, and a classifier head that gives all 20 logits at once.

The study's CLS template and its single- and multiple-head classifiers (arXiv 2403.09720) are instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxvalues.data.batches import Tokens
from jaxvalues.data.template import Template
from jaxvalues.errors import ConfigError

if TYPE_CHECKING:
    import jax
    from transformers import PreTrainedTokenizerBase

    from jaxvalues.data.arguments import Argument


@dataclass(frozen=True)
class Classify:
    """How arguments become token rows, and the model's output becomes logits [B, C]."""

    tokenizer: PreTrainedTokenizerBase
    template: Template
    max_length: int

    def __post_init__(self) -> None:
        if self.tokenizer.cls_token_id is None or self.tokenizer.sep_token_id is None:
            raise ConfigError(
                "formulation.kind classify needs a tokenizer with a [CLS] and a [SEP] token, and this "
                f"{type(self.tokenizer).__name__} has not both"
            )

    def encode(self, arguments: Sequence[Argument], labels: np.ndarray | None = None) -> Tokens:
        """Tokenise arguments, each as [CLS] segment ([SEP] segment)* [SEP], cut to `max_length` tokens.

        Text that spells a special token (`</s>`, `[MASK]`) is read as text, so no argument can break its own frame.
        """
        if not arguments:  # which transformers cannot tokenise
            return Tokens((), labels)
        segments = [self.template.render(argument) for argument in arguments]
        flat = [text for row in segments for text in row]
        pieces = iter(
            self.tokenizer(flat, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        )
        rows, truncated = [], 0
        for row in segments:
            ids = [self.tokenizer.cls_token_id]
            for _ in row:
                ids += [*next(pieces), self.tokenizer.sep_token_id]
            if len(ids) > self.max_length:
                ids = [*ids[: self.max_length - 1], self.tokenizer.sep_token_id]
                truncated += 1
            rows.append(np.array(ids, np.int32))
        return Tokens(tuple(rows), labels, truncated)

    @staticmethod
    def read(outputs: Any) -> jax.Array:
        """The classifier's logits [B, C]."""
        return outputs.logits
