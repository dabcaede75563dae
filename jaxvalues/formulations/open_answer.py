"""`open_answer` (OA): a generative model describes the arguer freely, and the words are matched to categories.

It is the study's OA template (arXiv 2403.09720). With `scoring: generation` an argument has a category if one of its
synonyms occurs in the generated answer. For training, and with `scoring: likelihood`, P is the probability that an
answer begins with one of the synonyms, and the logit is log P − log(1 − P).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvalues.config import FormulationConfig
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.formulations.lm_scoring import answer_log_probs
from jaxvalues.formulations.prompt_rows import PromptRows, language_model_rows
from jaxvalues.formulations.question_rows import QuestionFormulation
from jaxvalues.formulations.rows import Row, SafeTokenizer, pad_rows
from jaxvalues.formulations.verbalizer import any_log_prob, drop_extensions, word_ids
from jaxvalues.models import Outputs
from jaxvalues.templates.chat import turn_ends
from jaxvalues.templates.questions import QuestionTemplate
from jaxvalues.templates.synonyms import SynonymMatcher, load_synonyms
from jaxvalues.tuning import Bound

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def _spelled(tokenize: SafeTokenizer, words: Sequence[str], config: FormulationConfig) -> list[Row]:
    """The tokens of synonyms as an answer begins with them: behind a space, and in a chat without a stem also at the
    start of a line, where a template ends."""
    rows = [word_ids(tokenize, word) for word in words]
    if config.chat and config.stem is None:
        rows += [row for row in map(tokenize.line_start, words) if tokenize.inner.unk_token_id not in row]
    return drop_extensions(rows)


FOUND_LOGIT = 20.0
"""The logit of a category with a synonym in the generated answer. Without one, the logit is the negative."""


@dataclass(frozen=True)
class OpenAnswer(QuestionFormulation):
    """The formulation `open_answer`. Its logits are [B, K], or [B, 1] by generation."""

    synonyms: dict[str, tuple[str, ...]]

    @classmethod
    def make(
        cls,
        config: FormulationConfig,
        tokenizer: PreTrainedTokenizerBase,
        template: QuestionTemplate,
        max_length: int,
        *,
        is_causal: bool,
    ) -> OpenAnswer:
        """The formulation of a config. Raises ConfigError for a faulty file of synonyms.

        With `scoring: generation` each row has one question, because the answer is generated after the row.
        """
        synonyms, tokenize = load_synonyms(config.synonyms), SafeTokenizer(tokenizer)
        words = [_spelled(tokenize, synonyms[name], config) for name in CATEGORIES]
        answers = np.full((len(words), max(map(len, words)), max(len(w) for one in words for w in one)), -1, np.int32)
        for table, one in zip(answers, words, strict=True):
            ids = pad_rows(one)
            table[: ids.shape[0], : ids.shape[1]] = ids
        question_rows = language_model_rows(
            config,
            tokenizer,
            template,
            max_length,
            is_causal=is_causal,
            tokens=answers.shape[2],
            branches=not config.generates,
            answers=answers,
        )
        return cls(question_rows, synonyms)

    @property
    def constants(self) -> tuple[int, ...]:
        """The tokens that end an answer: EOS, and in a chat what its template writes behind a turn."""
        rows, tokenizer = self.question_rows, self.question_rows.tokenizer
        if isinstance(rows, PromptRows) and rows.writer.chat:
            return turn_ends(tokenizer)
        return () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)

    def forward(
        self, module: nn.Module, bound: Bound, batch: dict[str, jax.Array], key: jax.Array | None = None
    ) -> Outputs:
        """The logits [B, K] of a batch by the likelihood of the synonyms. `key` enables dropout."""
        ids, mask = batch["answer_ids"], batch["answer_mask"]
        scores = answer_log_probs(module, bound, batch, key, (ids, mask))
        is_real = mask.any(axis=-1)  # categories have different numbers of synonyms
        return Outputs(any_log_prob(jnp.where(is_real, scores, -jnp.inf)), None)

    def match(self, answers: np.ndarray, categories: np.ndarray) -> np.ndarray:
        """The logits [B, 1] by generation.

        `answers` [B, M] are the generated token ids, without the question. `categories` [B, 1] are those of the
        questions.
        """
        texts = self.question_rows.tokenizer.batch_decode(answers, skip_special_tokens=True)
        found = np.stack([self._matcher.match(text) for text in texts])
        return np.where(np.take_along_axis(found, categories, axis=1), FOUND_LOGIT, -FOUND_LOGIT).astype(np.float32)

    @cached_property
    def _matcher(self) -> SynonymMatcher:
        return SynonymMatcher(self.synonyms)
