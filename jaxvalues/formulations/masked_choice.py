"""`masked_choice` (MBC): a masked language model fills the mask of a question with Yes or No.

It is the study's MBC template (arXiv 2403.09720), with one question for each category. Words of m tokens are scored at
m adjacent masks in one pass: Σ_j log p(token j at mask j) (Schick & Schütze, 2021, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxvalues.config import FormulationConfig
from jaxvalues.errors import ConfigError, name_list
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
    """The formulation `masked_choice`. Its logits are [B, 1].

    There is one row for each argument and category: [CLS] text with masks [SEP].
    """

    verbalizer: Verbalizer

    @classmethod
    def make(
        cls, config: FormulationConfig, tokenizer: PreTrainedTokenizerBase, template: QuestionTemplate, max_length: int
    ) -> MaskedChoice:
        """The formulation of a config.

        Raises ConfigError for a tokenizer without a mask token, for a template without `{mask}`, and for answer words
        with different numbers of tokens.
        """
        if None in (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id):
            raise ConfigError(
                "formulation.kind masked_choice needs a tokenizer with [CLS], [SEP] and [MASK] tokens, and this "
                f"{type(tokenizer).__name__} does not have all of them"
            )
        if not template.has_mask:
            raise ConfigError(f"formulation.template {template.name}: masked_choice needs the slot {{mask}}")
        verbalizer = Verbalizer.make(config.verbalizer, SafeTokenizer(tokenizer))
        lengths = (verbalizer.ids >= 0).sum(axis=1)
        if lengths.min() < lengths.max():
            words = (*config.verbalizer.no, *config.verbalizer.yes)
            counts = name_list(f"`{word}` {n}" for word, n in zip(words, lengths, strict=True))
            raise ConfigError(
                "formulation.verbalizer: for masked_choice all words must have the same number of tokens, but they "
                f"have: {counts}"
            )
        start, end = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
        return cls(QuestionRows(tokenizer, template, max_length, start, end, verbalizer.tokens), verbalizer)

    @property
    def constants(self) -> tuple[int, ...]:
        return (*self.verbalizer.ids.ravel().tolist(), self.question_rows.tokenizer.mask_token_id)

    def forward(
        self, module: MaskedLM, bound: Bound, batch: dict[str, jax.Array], key: jax.Array | None = None
    ) -> Outputs:
        """The logits [B, 1] of a batch. `key` enables dropout."""
        several = self.verbalizer.tokens > 1
        words = None if several else self.verbalizer.words(bound.params)
        # The tokens of an argument contain no mask, so the first mask is the template's.
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
