"""The token rows of prompts for causal language models: with examples, as a chat, or with the tokenizer's own BOS.

A prompt is one text, and its tokens are those of the whole text. For questions that branch, it is divided behind the
last token that the prompts of all categories share, so that branches are short and hold no half of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from jaxvalues.data.arguments import Argument
from jaxvalues.data.batches import Tokens
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.formulations.examples import Examples, Shown
from jaxvalues.formulations.question_rows import EMPTY_ARGUMENT, QuestionRows
from jaxvalues.formulations.rows import FittedRows, Row, SafeTokenizer, as_arrays, check_readable, fitting_rows
from jaxvalues.templates.chat import chat_ids, conversation, leading_ids

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from jaxvalues.config import FormulationConfig
    from jaxvalues.templates.questions import QuestionTemplate

Turn = tuple[str, str]
"""What was asked, and what was answered."""
RowsOf = Callable[..., list[Row]]
"""(arguments, count=number of examples) -> rows."""


@dataclass(frozen=True)
class PromptWriter:
    """Writes questions as prompts: as turns of a chat, or one below the other as plain text."""

    tokenizer: PreTrainedTokenizerBase
    chat: bool = False
    system: str | None = None
    stem: str = ""

    @classmethod
    def make(cls, config: FormulationConfig, tokenizer: PreTrainedTokenizerBase) -> PromptWriter:
        """The writer of a config."""
        return cls(tokenizer, config.chat, config.system, config.stem or "")

    def ids(self, question: str, turns: Sequence[Turn] = ()) -> Row:
        """The tokens of a question behind earlier turns. Raises UserError for what the chat template refuses."""
        if self.chat:
            return chat_ids(self.tokenizer, conversation(question, turns, self.system), stem=self.stem)
        text = "\n\n".join((*(f"{asked} {answered}" for asked, answered in turns), question))
        return [*self._start, *self._tokenize.ids(text)]

    @property
    def is_plain(self) -> bool:
        """Whether a prompt is no more than the tokens of its text."""
        return not self.chat and not self._start

    @cached_property
    def _start(self) -> Row:
        return leading_ids(self.tokenizer)

    @cached_property
    def _tokenize(self) -> SafeTokenizer:
        return SafeTokenizer(self.tokenizer)


@dataclass(frozen=True)
class PromptRows(QuestionRows):
    """`QuestionRows` whose rows are prompts by a `writer`, with `examples` before the question.

    `said` are the words (no, yes) that answer in examples. Raises UserError for an
    argument whose prompts do not end in the tokens of the questions.
    """

    writer: PromptWriter | None = None
    examples: Examples | None = None
    said: tuple[str, str] = ("No", "Yes")

    def prompt(self, argument: Argument, category: int) -> Row:
        """The tokens of the whole prompt about one category, with all examples."""
        return self._whole(argument, category, self._examples([argument])[0])

    def _fit(self, arguments: Sequence[Argument], rows_of: RowsOf, max_length: int) -> FittedRows:
        return fit_prompts(arguments, rows_of, max_length, self.examples)

    def _rows_of(self, category: int, known: dict[str, Row]) -> Any:
        return lambda some, count: self._category_rows(some, category, count)

    def _rows(self, arguments: Sequence[Argument], category: int, known: dict[str, Row]) -> list[Row]:
        return self._category_rows(arguments, category, 0)

    def _category_rows(self, arguments: Sequence[Argument], category: int, count: int) -> list[Row]:
        examples = self._examples(arguments, count)
        return [self._whole(one, category, shown) for one, shown in zip(arguments, examples, strict=True)]

    def _contexts(self, arguments: Sequence[Argument], count: int = 0) -> list[Row]:
        """What the prompts of all categories share. Of every argument one prompt is written, of the first all."""
        examples, rows = self._examples(arguments, count), []
        for number, (argument, shown) in enumerate(zip(arguments, examples, strict=True)):
            asked = range(self._count) if number == 0 else [number % self._count]
            each = {self._split(argument, category, shown) for category in asked}
            if len(each) > 1:
                raise UserError(_UNDIVIDED.format(argument.id))
            rows.append(list(*each))
        return rows

    def _split(self, argument: Argument, category: int, shown: Sequence[Shown]) -> tuple[int, ...]:
        whole, branch = self._whole(argument, category, shown), self._branch_rows[category]
        if whole[-len(branch) :] != branch:
            raise UserError(_UNDIVIDED.format(argument.id))
        return tuple(whole[: -len(branch)])

    def _whole(self, argument: Argument, category: int, shown: Sequence[Shown]) -> Row:
        turns = [(self._question(one.argument, one.category), self.said[one.is_yes]) for one in shown]
        return self.writer.ids(self._question(argument, category), turns)

    def _question(self, argument: Argument, category: int) -> str:
        return self.template.context(argument) + "".join(self.template.question(category, argument))

    def _examples(self, arguments: Sequence[Argument], count: int | None = None) -> list[list[Shown]]:
        """The last `count` examples of each argument. None: all."""
        if self.examples is None or count == 0:
            return [[]] * len(arguments)
        return [shown if count is None else shown[-count:] for shown in self.examples.of(arguments)]

    @cached_property
    def _branch_rows(self) -> list[Row]:
        """What is left of the prompts of all categories, about an empty argument, behind the tokens that they share."""
        wholes = [self._whole(EMPTY_ARGUMENT, category, ()) for category in range(self._count)]
        shared = next(i for i, tokens in enumerate(zip(*wholes, strict=False)) if len(set(tokens)) > 1)
        return [whole[shared:] for whole in wholes]


def fit_prompts(
    arguments: Sequence[Argument], rows_of: RowsOf, max_length: int, examples: Examples | None
) -> FittedRows:
    """Prompts that fit in `max_length` tokens: with fewer examples where all are too many, then truncated.

    `rows_of` returns the prompts of whole arguments with `count` examples each.
    """
    count = 0 if examples is None else examples.config.count
    rows, missing = rows_of(arguments, count=count) if arguments else [], []
    for fewer in range(count - 1, -1, -1):
        at = [i for i, row in enumerate(rows) if len(row) > max_length]
        if not at:
            break
        for i, row in zip(at, rows_of([arguments[i] for i in at], count=fewer), strict=True):
            rows[i] = row
        missing += at
    long = [i for i, row in enumerate(rows) if len(row) > max_length]
    shorter = fitting_rows([arguments[i] for i in long], partial(rows_of, count=0), max_length).rows
    for i, row in zip(long, shorter, strict=True):
        rows[i] = row
    return FittedRows(rows, long, missing)


def language_model_rows(
    config: FormulationConfig,
    tokenizer: PreTrainedTokenizerBase,
    template: QuestionTemplate,
    max_length: int,
    *,
    is_causal: bool,
    examples: Examples | None = None,
    branches: bool = True,
    **options: Any,
) -> QuestionRows:
    """The rows of a config for a generative model; see `QuestionRows.for_language_model`.

    Raises ConfigError for a chat or examples with an encoder-decoder.
    """
    writer = PromptWriter.make(config, tokenizer)
    if not is_causal and (config.chat or examples is not None):
        key = "chat" if config.chat else "examples"
        raise ConfigError(f"formulation.{key} is for causal language models: remove it for an encoder-decoder")
    if not is_causal or (writer.is_plain and examples is None):
        return QuestionRows.for_language_model(
            tokenizer, template, max_length, is_causal=is_causal, branches=branches, **options
        )
    return PromptRows.for_language_model(
        tokenizer,
        template,
        max_length,
        is_causal=True,
        branches=branches and len(template.labels) > 1,
        writer=writer,
        examples=examples,
        said=(config.verbalizer.no[0], config.verbalizer.yes[0]),
        **options,
    )


@dataclass(frozen=True)
class ArgumentRows:
    """One prompt per argument, by a `writer`: `ask` writes its question, `tell` the answer of an example.

    Raises ConfigError for a question that leaves no token for an argument.
    """

    writer: PromptWriter
    ask: Callable[[Argument], str]
    max_length: int
    examples: Examples | None = None
    tell: Callable[[Shown], str] = str

    def __post_init__(self) -> None:
        if self.needed >= self.max_length:
            raise ConfigError(
                f"the template takes up to {self.needed} tokens, and data.max_length leaves {max(self.max_length, 0)} "
                "for it and an argument: raise it, or use shorter descriptions"
            )

    @property
    def needed(self) -> int:
        """The tokens of a prompt about nothing."""
        return len(self.writer.ids(self.ask(EMPTY_ARGUMENT)))

    def encode(self, arguments: Sequence[Argument], labels: np.ndarray | None = None) -> Tokens:
        """Tokenises the prompts of arguments. Raises UserError for an argument that a model cannot read."""
        check_readable(arguments)
        fitted = fit_prompts(arguments, self._rows, self.max_length, self.examples)
        fewer = {"fewer_examples": len(set(fitted.fewer)), "examples_left_out": len(fitted.fewer)}
        return Tokens(as_arrays(fitted.rows), labels, len(fitted.long), **fewer)

    def _rows(self, arguments: Sequence[Argument], count: int) -> list[Row]:
        shown = [[]] * len(arguments) if count == 0 else [each[-count:] for each in self.examples.of(arguments)]
        pairs = zip(arguments, shown, strict=True)
        return [
            self.writer.ids(self.ask(one), [(self.ask(each.argument), self.tell(each)) for each in examples])
            for one, examples in pairs
        ]


_UNDIVIDED = (
    "{}: the tokens of a question depend on the argument before it, so that the questions cannot share it: let the "
    "template have a full stop or a space between them"
)
