"""`classify`: one pass over a template, and a classifier head that gives all 20 logits at once.

The study's CLS template and its single- and multiple-head classifiers (arXiv 2403.09720) are instances.
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
    """How arguments become token rows, and the model's output becomes logits [B, C].

    A row is [CLS] segment ([SEP] segment)* [SEP]; a tokenizer without such tokens (GPT-2's) gives the segment alone.
    Raises ConfigError for a template of several segments then, and for descriptions that do not fit.
    """

    tokenizer: PreTrainedTokenizerBase
    template: Template
    max_length: int

    def __post_init__(self) -> None:
        segments = len(self.template.segments) + (self.template.descriptions is not None)
        if not self._frames and segments > 1:
            raise ConfigError(
                f"formulation.template {self.template.name}: with descriptions it has {segments} segments, and this "
                f"{type(self.tokenizer).__name__} has no [CLS] and [SEP] tokens to set them apart: use a template "
                "without {sep}, and no descriptions"
            )
        if self.template.descriptions is not None:
            self._check_room(self.template.descriptions)

    def encode(self, arguments: Sequence[Argument], labels: np.ndarray | None = None) -> Tokens:
        """Tokenise arguments, each in at most `max_length` tokens.

        Where that is too long, the premise loses its end, and the conclusion too when no premise is left; the words of
        the template, the stance and the descriptions stay. Ids are always those of a whole text, never cut apart; only
        a template that is too long by itself is cut at its end. Text that spells a special token (`</s>`, `[MASK]`)
        never becomes one, so no argument can break its own frame.
        Raises UserError for an argument that cannot be read.
        """
        check_readable(arguments)
        rows, long = fitting_rows(arguments, self._rows, self.max_length)
        end = [self.tokenizer.sep_token_id] if self._frames else []
        for i in long:
            if len(rows[i]) > self.max_length:
                rows[i] = [*rows[i][: self.max_length - len(end)], *end]
        return Tokens(as_arrays(rows), labels, len(long))

    def forward(
        self, module: Classifier, bound: Bound, batch: dict[str, jax.Array], key: jax.Array | None = None
    ) -> Outputs:
        """Logits [B, C] and embedding [B, E] of a batch; dropout where a key is given."""
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
    def _frames(self) -> bool:
        return None not in (self.tokenizer.cls_token_id, self.tokenizer.sep_token_id)

    @cached_property
    def _tokenize(self) -> SafeTokenizer:
        return SafeTokenizer(self.tokenizer)

    def _rows(self, arguments: Sequence[Argument]) -> list[Row]:
        """Token ids of whole arguments, however long."""
        rendered = [self.template.render(argument) for argument in arguments]
        ids = self._tokenize(text for segments in rendered for text in segments)
        if not self._frames:
            return [ids[text] for (text,) in rendered]
        rows = []
        for segments in rendered:
            row = [self.tokenizer.cls_token_id]
            for text in segments:
                row += [*ids[text], self.tokenizer.sep_token_id]
            rows.append(row)
        return rows

    def _check_room(self, descriptions: str) -> None:
        frames = self._rows([Argument("", "", stance, "") for stance in STANCES])
        needed, room = max(map(len, frames)), self.max_length
        if needed >= room:
            described = len(self._tokenize.ids(descriptions))
            raise ConfigError(
                f"formulation.descriptions: the descriptions take {described} tokens, with the template's own words "
                f"{needed}, and data.max_length {room} leaves none for an argument: raise it, or describe more briefly"
            )
