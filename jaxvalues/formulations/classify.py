"""`classify`: the network encodes an argument once, and a classifier head returns all 20 logits.

It covers the study's CLS template and its single- and multiple-head classifiers (arXiv 2403.09720).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from jaxvalues.data.arguments import STANCES, Argument
from jaxvalues.data.batches import Tokens
from jaxvalues.errors import ConfigError
from jaxvalues.formulations.rows import Row, SafeTokenizer, as_arrays, check_readable, fitting_rows
from jaxvalues.models import Classifier, Outputs
from jaxvalues.templates.template import Template
from jaxvalues.tuning import Bound

if TYPE_CHECKING:
    import jax
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Classify:
    """The formulation `classify`. Its logits are [B, C].

    A row is [CLS] segment ([SEP] segment)* [SEP]. With a tokenizer without these tokens (GPT-2's) a row is one segment.
    Raises ConfigError for several segments with such a tokenizer, and for descriptions that are too long.
    """

    tokenizer: PreTrainedTokenizerBase
    template: Template
    max_length: int

    def __post_init__(self) -> None:
        segments = len(self.template.segments) + (self.template.descriptions is not None)
        if not self._has_special_tokens and segments > 1:
            raise ConfigError(
                f"formulation.template {self.template.name}: with descriptions it has {segments} segments, but this "
                f"{type(self.tokenizer).__name__} has no [CLS] and [SEP] tokens between them: use a template without "
                "{sep} and no descriptions"
            )
        if self.template.descriptions is not None:
            self._check_length(self.template.descriptions)

    def encode(self, arguments: Sequence[Argument], labels: np.ndarray | None = None) -> Tokens:
        """Tokenises arguments to at most `max_length` tokens each.

        A long argument is truncated at the end of its premise, and at the end of its conclusion when no premise is
        left. The template's own words, the stance and the descriptions stay. The text is truncated, not the ids, except
        for a template that is too long by itself. Text that spells a special token (`</s>`, `[MASK]`) is not converted
        to that token. Raises UserError for an argument that a model cannot read.
        """
        check_readable(arguments)
        rows, long, _ = fitting_rows(arguments, self._rows, self.max_length)
        end = [self.tokenizer.sep_token_id] if self._has_special_tokens else []
        for i in long:
            if len(rows[i]) > self.max_length:
                rows[i] = [*rows[i][: self.max_length - len(end)], *end]
        return Tokens(as_arrays(rows), labels, len(long))

    def forward(
        self, module: Classifier, bound: Bound, batch: dict[str, jax.Array], key: jax.Array | None = None
    ) -> Outputs:
        """The logits [B, C] and the embeddings [B, E] of a batch. `key` enables dropout."""
        return module.apply(
            {"params": bound.params},
            batch.get("input_ids"),
            batch["attention_mask"],
            deterministic=key is None,
            hidden=batch.get("hidden"),
            prompt=bound.prompt,
            prefix=bound.prefix,
            rngs=None if key is None else {"dropout": key},
        )

    @property
    def constants(self) -> tuple[int, ...]:
        return ()

    @property
    def _has_special_tokens(self) -> bool:
        return None not in (self.tokenizer.cls_token_id, self.tokenizer.sep_token_id)

    @cached_property
    def _tokenize(self) -> SafeTokenizer:
        return SafeTokenizer(self.tokenizer)

    def _rows(self, arguments: Sequence[Argument]) -> list[Row]:
        """The token ids of whole arguments, of any length."""
        rendered = [self.template.render(argument) for argument in arguments]
        ids = self._tokenize(text for segments in rendered for text in segments)
        if not self._has_special_tokens:
            return [ids[text] for (text,) in rendered]
        rows = []
        for segments in rendered:
            row = [self.tokenizer.cls_token_id]
            for text in segments:
                row += [*ids[text], self.tokenizer.sep_token_id]
            rows.append(row)
        return rows

    def _check_length(self, descriptions: str) -> None:
        empty = self._rows([Argument("", "", stance, "") for stance in STANCES])
        needed = max(map(len, empty))
        if needed >= self.max_length:
            described = len(self._tokenize.ids(descriptions))
            raise ConfigError(
                f"formulation.descriptions: the descriptions take {described} tokens, {needed} with the template's own "
                f"words, and data.max_length {self.max_length} leaves none for an argument: raise it, or use shorter "
                "descriptions"
            )
