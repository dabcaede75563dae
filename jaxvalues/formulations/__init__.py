"""Formulations: how arguments become inputs, and how outputs become logits [B, C]. Each kind is one class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import numpy as np

from jaxvalues.config import GENERATED, FormulationConfig
from jaxvalues.data.arguments import Argument
from jaxvalues.data.batches import Tokens
from jaxvalues.data.task import VALUES, Task
from jaxvalues.errors import ConfigError
from jaxvalues.formulations.answer import Answer
from jaxvalues.formulations.chain_of_thought import ChainOfThought
from jaxvalues.formulations.classify import Classify
from jaxvalues.formulations.examples import Examples
from jaxvalues.formulations.label_list import LabelList
from jaxvalues.formulations.masked_choice import MaskedChoice
from jaxvalues.formulations.open_answer import OpenAnswer
from jaxvalues.models import Outputs
from jaxvalues.models.model_types import CAUSAL
from jaxvalues.templates.questions import QuestionTemplate, load_question_template
from jaxvalues.templates.synonyms import load_synonyms
from jaxvalues.templates.template import Template, load_template
from jaxvalues.templates.turns import ChainTemplate, ListTemplate, load_chain_template, load_list_template
from jaxvalues.tuning import Bound

if TYPE_CHECKING:
    import jax
    from flax import linen as nn
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "CAUSAL",
    "SEQ2SEQ",
    "Answer",
    "AnyTemplate",
    "ChainOfThought",
    "Classify",
    "Formulation",
    "LabelList",
    "MaskedChoice",
    "OpenAnswer",
    "check_kind",
    "load_texts",
]
__all__ += ["make_formulation", "training_texts"]

SEQ2SEQ = ("t5",)
"""The model types of encoder-decoders. Those that are neither here nor in CAUSAL are masked language models."""


AnyTemplate = Template | QuestionTemplate | ListTemplate | ChainTemplate


class Formulation(Protocol):
    """The interface of all formulations: arguments to token rows, and batches of them to logits."""

    @property
    def constants(self) -> tuple[int, ...]:
        """The token ids that are constants of the compiled steps, such as those of the answer words and the mask."""
        ...

    def encode(self, arguments: Sequence[Argument], labels: np.ndarray | None = None) -> Tokens:
        """The token rows of arguments. Question formulations also take `pairs`, which select the questions."""
        ...

    def forward(
        self, module: nn.Module, bound: Bound, batch: dict[str, jax.Array], key: jax.Array | None = None
    ) -> Outputs:
        """The logits of a batch of rows: [B, C], or [B, K] for question formulations. `key` enables dropout."""
        ...


def load_texts(config: FormulationConfig, task: Task = VALUES) -> AnyTemplate:
    """The checked template of a config, with its descriptions. Raises ConfigError for a faulty one."""
    name = config.template or config.default_template(task.name)
    if config.kind == "label_list":
        return load_list_template(name, config.descriptions, task)
    if config.kind == "chain_of_thought":
        return load_chain_template(name, config.descriptions, config.synonyms, task)
    if not config.asks_questions:
        return load_template(name, config.descriptions, task)
    return load_question_template(name, config.descriptions, masked=config.kind == "masked_choice", task=task)


def training_texts(config: FormulationConfig, template: AnyTemplate, arguments: Iterable[Argument]) -> Iterable[str]:
    """The texts for training a tokenizer: every argument in its template, every question and every answer word."""
    if isinstance(template, Template):
        return (text for argument in arguments for text in template.render(argument))
    if isinstance(template, ListTemplate):
        return (template.question(argument) for argument in arguments)
    arguments = list(arguments)
    if isinstance(template, ChainTemplate):
        firsts = (template.first(argument) for argument in arguments)
        return chain(firsts, (template.second(arguments[0], c, "") for c in range(len(template.labels))))
    contexts = (template.context(argument) for argument in arguments)
    some = arguments if not template.shares_context else arguments[:1]
    questions = (t for argument in some for c in range(len(template.labels)) for t in template.question(c, argument))
    if config.kind == "open_answer":
        words = chain.from_iterable(load_synonyms(config.synonyms).values())
    else:
        words = (*config.verbalizer.yes, *config.verbalizer.no)
    return chain(contexts, questions, *([f" {word}"] * len(arguments) for word in words))


def check_kind(kind: str, model_type: str) -> None:
    """Raises ConfigError for a formulation kind that an architecture does not support."""
    is_generative = model_type in CAUSAL + SEQ2SEQ
    if kind == "masked_choice" and is_generative:
        raise ConfigError(
            f"formulation.kind masked_choice needs a masked language model, and {model_type} is none: use answer"
        )
    if kind in ("answer", "open_answer") and not is_generative:
        raise ConfigError(
            f"formulation.kind {kind} needs a generative model ({', '.join(CAUSAL + SEQ2SEQ)}), and {model_type} is "
            "none: use masked_choice"
        )
    if kind in GENERATED and model_type not in CAUSAL:
        raise ConfigError(f"formulation.kind {kind} needs a causal language model, and {model_type} is none")
    if kind == "classify" and model_type in SEQ2SEQ:
        raise ConfigError(
            f"formulation.kind classify does not support encoder-decoders such as {model_type}: use answer"
        )


def make_formulation(
    config: FormulationConfig,
    tokenizer: PreTrainedTokenizerBase,
    template: AnyTemplate,
    max_length: int,
    model_type: str,
    *,
    examples: Examples | None = None,
) -> Formulation:
    """The formulation of a config for a network of `model_type`. `examples` are those of `formulation.examples`.

    Raises ConfigError for a kind that the architecture does not support, and for a template, tokenizer or length that
    does not fit the kind.
    """
    check_kind(config.kind, model_type)
    is_causal = model_type in CAUSAL
    match config.kind:
        case "classify":
            return Classify(tokenizer, template, max_length)
        case "masked_choice":
            return MaskedChoice.make(config, tokenizer, template, max_length)
        case "answer":
            return Answer.make(config, tokenizer, template, max_length, is_causal=is_causal, examples=examples)
        case "label_list":
            return LabelList.make(config, tokenizer, template, max_length, examples=examples)
        case "chain_of_thought":
            return ChainOfThought.make(config, tokenizer, template, max_length)
        case "open_answer":
            return OpenAnswer.make(config, tokenizer, template, max_length, is_causal=is_causal)
