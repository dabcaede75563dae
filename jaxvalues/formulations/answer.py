"""`answer` (BCA): a generative model answers a question about each category with Yes or No.

It is the study's BCA template (arXiv 2403.09720). logit = log p(Yes) − log p(No), each as the continuation of the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvalues.config import FormulationConfig
from jaxvalues.formulations.examples import Examples
from jaxvalues.formulations.lm_scoring import answer_log_probs, word_logits, word_logits_and_mass
from jaxvalues.formulations.prompt_rows import language_model_rows
from jaxvalues.formulations.question_rows import QuestionFormulation
from jaxvalues.formulations.rows import SafeTokenizer
from jaxvalues.formulations.verbalizer import Verbalizer
from jaxvalues.models import Outputs
from jaxvalues.templates.questions import QuestionTemplate
from jaxvalues.tuning import Bound

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer(QuestionFormulation):
    """The formulation `answer`. Its logits are [B, K].

    On a causal network the K questions of an argument branch from its row. Otherwise each row has one question.
    """

    verbalizer: Verbalizer
    is_causal: bool = False

    @classmethod
    def make(
        cls,
        config: FormulationConfig,
        tokenizer: PreTrainedTokenizerBase,
        template: QuestionTemplate,
        max_length: int,
        *,
        is_causal: bool,
        examples: Examples | None = None,
    ) -> Answer:
        """The formulation of a config. Raises ConfigError for answer words or a template that do not fit."""
        verbalizer = Verbalizer.make(config.verbalizer, SafeTokenizer(tokenizer), prefixes=True, in_chat=config.chat)
        tokens = verbalizer.tokens
        rows = language_model_rows(
            config, tokenizer, template, max_length, is_causal=is_causal, examples=examples, tokens=tokens
        )
        return cls(rows, verbalizer, is_causal)

    @property
    def constants(self) -> tuple[int, ...]:
        return tuple(self.verbalizer.ids.ravel().tolist())

    @property
    def measures_mass(self) -> bool:
        """Whether `scores` can measure how probable the answer words are."""
        return self.is_causal and self.verbalizer.tokens == 1 and not self.verbalizer.soft

    def scores(self, module: nn.Module, bound: Bound, batch: dict[str, jax.Array]) -> jax.Array:
        """[B, K, 2]: the logits of `forward`, and the probability of all answer words together."""
        words, mass = word_logits_and_mass(module, bound, batch, self.verbalizer.words(bound.params))
        return jnp.stack([self.verbalizer.logit(words), mass], axis=-1)

    def forward(
        self, module: nn.Module, bound: Bound, batch: dict[str, jax.Array], key: jax.Array | None = None
    ) -> Outputs:
        """The logits [B, K] of a batch. `key` enables dropout."""
        if self.verbalizer.tokens == 1:
            scores = word_logits(module, bound, batch, key, self.verbalizer.words(bound.params))
        else:
            ids = jnp.broadcast_to(self.verbalizer.ids, (*batch["categories"].shape, *self.verbalizer.ids.shape))
            scores = answer_log_probs(module, bound, batch, key, (jnp.maximum(ids, 0), ids >= 0))
        return Outputs(self.verbalizer.logit(scores), None)
