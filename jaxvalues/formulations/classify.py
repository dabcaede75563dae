"""`classify`: one pass of the encoder over a template, and a classifier head that gives all 20 logits at once.

The study's CLS template and its single- and multiple-head classifiers (arXiv 2403.09720) are instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxvalues.data.arguments import STANCES, Argument
from jaxvalues.data.batches import Tokens
from jaxvalues.data.shortening import shortened_rows
from jaxvalues.data.template import Template
from jaxvalues.errors import ConfigError, UserError

if TYPE_CHECKING:
    import jax
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Classify:
    """How arguments become token rows, and the model's output becomes logits [B, C].

    Raises ConfigError for a tokenizer without the tokens that frame a row, and for descriptions that do not fit.
    """

    tokenizer: PreTrainedTokenizerBase
    template: Template
    max_length: int

    def __post_init__(self) -> None:
        if self.tokenizer.cls_token_id is None or self.tokenizer.sep_token_id is None:
            raise ConfigError(
                "formulation.kind classify needs a tokenizer with a [CLS] and a [SEP] token, and this "
                f"{type(self.tokenizer).__name__} has not both"
            )
        if self.template.descriptions is not None:
            self._check_room(self.template.descriptions)

    def encode(self, arguments: Sequence[Argument], labels: np.ndarray | None = None) -> Tokens:
        """Tokenise arguments, each as [CLS] segment ([SEP] segment)* [SEP], in at most `max_length` tokens.

        Where that is too long, the premise loses its end, and the conclusion too when no premise is left; the words of
        the template, the stance and the descriptions stay. Ids are always those of a whole text, never cut apart; only
        a template that is too long by itself is cut at its end. Text that spells a special token (`</s>`, `[MASK]`)
        never becomes one, so no argument can break its own frame.
        Raises UserError for an argument that cannot be read.
        """
        for argument in arguments:
            for fault in argument.faults():
                raise UserError(fault)
        rows = self._rows(arguments)
        long = [i for i, row in enumerate(rows) if len(row) > self.max_length]
        shorter = shortened_rows([arguments[i] for i in long], self._rows, self.max_length)
        for i, row in zip(long, shorter, strict=True):
            whole = len(row) <= self.max_length
            rows[i] = row if whole else [*row[: self.max_length - 1], self.tokenizer.sep_token_id]
        return Tokens(tuple(np.array(row, np.int32) for row in rows), labels, len(long))

    @staticmethod
    def read(outputs: Any) -> jax.Array:
        """The classifier's logits [B, C]."""
        return outputs.logits

    def _rows(self, arguments: Sequence[Argument]) -> list[list[int]]:
        """Token ids of whole arguments, however long."""
        rendered = [self.template.render(argument) for argument in arguments]
        ids = self._ids(text for segments in rendered for text in segments)
        rows = []
        for segments in rendered:
            row = [self.tokenizer.cls_token_id]
            for text in segments:
                row += [*ids[text], self.tokenizer.sep_token_id]
            rows.append(row)
        return rows

    def _ids(self, texts: Iterable[str]) -> dict[str, list[int]]:
        """The ids of each text, without special tokens; one that comes often is tokenised once."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:  # which transformers cannot tokenise
            return {}
        options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
        ids = self.tokenizer(distinct, add_special_tokens=False, split_special_tokens=True, **options)["input_ids"]
        return dict(zip(distinct, map(self._without_special, ids), strict=True))

    def _without_special(self, ids: list[int]) -> list[int]:
        """Unigram vocabularies hold the special tokens as pieces, which a text can spell: they become unknown."""
        if self._special.isdisjoint(ids):
            return ids
        unknown = [] if self.tokenizer.unk_token_id is None else [self.tokenizer.unk_token_id]
        return [kept for id in ids for kept in (unknown if id in self._special else [id])]

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}

    def _check_room(self, descriptions: str) -> None:
        frames = self._rows([Argument("", "", stance, "") for stance in STANCES])
        needed, room = max(map(len, frames)), self.max_length
        if needed >= room:
            described = len(self._ids([descriptions])[descriptions])
            raise ConfigError(
                f"formulation.descriptions: the descriptions take {described} tokens, with the template's own words "
                f"{needed}, and data.max_length {room} leaves none for an argument: raise it, or describe more briefly"
            )
