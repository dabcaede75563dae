"""`chain_of_thought` (CoT): the study's two turns (arXiv 2403.09720).

The model first says which values it sees in an argument. This is generated once per argument. Then it is asked about
each category, and answers Yes or No. These 20 second turns branch from one row, and are scored as in `answer`, not
generated: so there is an answer even where the first turn was cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from jaxvalues.config import FormulationConfig
from jaxvalues.data.arguments import Argument
from jaxvalues.data.batches import Tokens
from jaxvalues.errors import ConfigError
from jaxvalues.formulations.answer import Answer
from jaxvalues.formulations.examples import Shown
from jaxvalues.formulations.prompt_rows import ArgumentRows, PromptRows, PromptWriter
from jaxvalues.formulations.question_rows import EMPTY_ARGUMENT, Pairs
from jaxvalues.formulations.rows import Row, SafeTokenizer
from jaxvalues.formulations.verbalizer import Verbalizer
from jaxvalues.templates.turns import ChainTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPARE = 8
"""Tokens that a reply may have more as text than when it was generated."""


@dataclass(frozen=True)
class SecondTurns(PromptRows):
    """The second turns, behind the first one and its reply. `replies` are those of arguments, by id."""

    template: ChainTemplate
    replies: Mapping[str, str] = field(default_factory=dict)

    def _whole(self, argument: Argument, category: int, shown: Sequence[Shown]) -> Row:
        reply = self.replies.get(argument.id, "")
        question = self.template.second(argument, category, reply)
        return self.writer.ids(question, [(self.template.first(argument), reply)])


@dataclass(frozen=True)
class ChainOfThought(Answer):
    """The formulation `chain_of_thought`. `encode` gives the first turns, `second_turns` the others [B, K]."""

    first_turns: ArgumentRows | None = None

    @classmethod
    def make(
        cls, config: FormulationConfig, tokenizer: PreTrainedTokenizerBase, template: ChainTemplate, max_length: int
    ) -> ChainOfThought:
        """The formulation of a config.

        Conversations have at most `max_length` tokens. The reply is in them twice: as a turn, and in the question.
        Raises ConfigError where these leave no token for an argument.
        """
        writer = PromptWriter.make(config, tokenizer)
        verbalizer = Verbalizer.make(config.verbalizer, SafeTokenizer(tokenizer), prefixes=True, in_chat=config.chat)
        second = SecondTurns(
            tokenizer, template, max_length, [], [], branches=True, reserved=verbalizer.tokens - 1, writer=writer
        )
        behind = second.longest - len(writer.ids(template.first(EMPTY_ARGUMENT))) + 2 * config.longest_answer + SPARE
        if behind >= max_length:
            raise ConfigError(
                f"data.max_length {max_length} leaves no token for an argument: the second turn takes {behind}, with "
                f"twice the reply of up to {config.longest_answer} (formulation.generation.max_new_tokens)"
            )
        first = ArgumentRows(writer, template.first, max_length - behind)
        return cls(second, verbalizer, True, first)

    @property
    def synonyms(self) -> dict[str, tuple[str, ...]]:
        return self.question_rows.template.synonyms

    def encode(
        self, arguments: Sequence[Argument], labels: np.ndarray | None = None, pairs: Pairs | None = None
    ) -> Tokens:
        """Tokenises the first turns."""
        return self.first_turns.encode(arguments, labels)

    def second_turns(self, arguments: Sequence[Argument], replies: Sequence[str]) -> Tokens:
        """Tokenises the second turns about all categories, behind the replies to the first."""
        numbered = [replace(argument, id=str(i)) for i, argument in enumerate(arguments)]  # ids need not differ
        rows = replace(self.question_rows, replies={str(i): reply for i, reply in enumerate(replies)})
        return rows.encode(numbered)
