"""`masked_choice` (MBC): a masked language model fills the mask of a question with Yes or No.

The study's MBC template (arXiv 2403.09720), one query for each category. Words of m tokens are scored on m masks side
by side, Σ_j log p(token j at mask j), as Schick & Schütze (2021, section 3) read several masks in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxvalues.config import FormulationConfig
from jaxvalues.errors import ConfigError
from jaxvalues.formulations.question_rows import QuestionFormulation, QuestionRows
from jaxvalues.formulations.rows import SafeTokenizer
from jaxvalues.formulations.verbalizer import Verbalizer, token_log_probs
from jaxvalues.models import MaskedLM, Outputs
from jaxvalues.templates.questions import QuestionTemplate
from jaxvalues.tuning import Bound

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class MaskedChoice(QuestionFormulation):
    """Rows [CLS] text with masks [SEP], one for each argument and category, to logits [B, 1]."""

    verbalizer: Verbalizer

    @classmethod
    def make(
        cls, config: FormulationConfig, tokenizer: PreTrainedTokenizerBase, template: QuestionTemplate, max_length: int
    ) -> MaskedChoice:
        """Raises ConfigError for a tokenizer without a mask, and for words of different lengths in tokens."""
        if None in (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id):
            raise ConfigError(
                "formulation.kind masked_choice needs a tokenizer with [CLS], [SEP] and [MASK] tokens, and this "
                f"{type(tokenizer).__name__} has not all of them"
            )
        if not template.has_mask:
            raise ConfigError(f"formulation.template {template.name}: masked_choice needs the slot {{mask}}")
        verbalizer = Verbalizer.make(config.verbalizer, SafeTokenizer(tokenizer))
        lengths = (verbalizer.ids >= 0).sum(axis=1)
        if lengths.min() < lengths.max():
            said = ", ".join(
                f"`{word}` {n}"
                for word, n in zip((*config.verbalizer.no, *config.verbalizer.yes), lengths, strict=True)
            )
            raise ConfigError(
                f"formulation.verbalizer: words that fill masks must all have as many tokens, and they have {said}"
            )
        before, after = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
        return cls(QuestionRows(tokenizer, template, max_length, before, after, verbalizer.tokens), verbalizer)

    @property
    def constants(self) -> tuple[int, ...]:
        return (*self.verbalizer.ids.ravel().tolist(), self.question_rows.tokenizer.mask_token_id)

    def forward(
        self, module: MaskedLM, bound: Bound, batch: dict[str, jax.Array], key: jax.Array | None = None
    ) -> Outputs:
        """Logits [B, 1] of a batch; dropout where a key is given."""
        several = self.verbalizer.tokens > 1
        words = None if several else self.verbalizer.words(bound.params)
        # No text of an argument can hold a mask, so the first is the template's.
        first = jnp.argmax(batch["input_ids"] == self.question_rows.tokenizer.mask_token_id, axis=1)
        logits = module.apply(
            {"params": bound.params},
            batch["input_ids"],
            batch["attention_mask"],
            positions=first[:, None] + np.arange(self.verbalizer.tokens),
            words=words,
            prompt=bound.prompt,
            prefix=bound.prefix,
            deterministic=key is None,
            rngs=None if key is None else {"dropout": key},
        )  # [B, m, A or V]
        if not several:
            return Outputs(self.verbalizer.logit(logits), None)
        ids = jnp.broadcast_to(self.verbalizer.ids, (len(logits), *self.verbalizer.ids.shape))
        each = token_log_probs(
            jnp.broadcast_to(logits[:, None], (*ids.shape, logits.shape[-1])), ids, jnp.ones_like(ids)
        )
        return Outputs(self.verbalizer.logit(each)[:, None], None)
