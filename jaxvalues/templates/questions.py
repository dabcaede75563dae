"""Question templates: text files with the question that a language model answers for each category of an argument.

A question template has the slots of an argument, `{premise}`, `{conclusion}` and `{stance}` (see `templates.template`),
and those of a category, `{description}` and `{category}` (its name). `{mask}` is the place of the answer for a masked
language model. The built-in templates are the study's (arXiv 2403.09720): `masked_choice` (MBC), `answer` (BCA) and
`open_answer` (OA). `stance_masked` and `stance_answer` have one question for each argument, about its stance.

A file may contain descriptions: below the template, a line `Category<TAB>Description` and a row for each category. A
run folder stores `QuestionTemplate.text`, which is such a file.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

from jaxvalues.data.arguments import Argument
from jaxvalues.data.task import VALUES, Task
from jaxvalues.errors import ConfigError
from jaxvalues.templates.descriptions import HEADER, load_descriptions, read_descriptions
from jaxvalues.templates.template import (
    ARGUMENT_SLOTS,
    argument_slots,
    parse_template,
    raise_template_error,
    read_template,
)

BUILT_IN = ("masked_choice", "answer", "answer_chat", "open_answer")
BUILT_IN_STANCE = ("stance_masked", "stance_answer")
"""The names of the built-in question templates, for the task of values and for that of the stance."""
CATEGORY_SLOTS = ("description", "category")
SLOTS = (*ARGUMENT_SLOTS, *CATEGORY_SLOTS, "mask")


@dataclass(frozen=True)
class QuestionTemplate:
    """A checked question template. It gives one question for each label of its task.

    The full text is `context` followed by `question`. The boundary is the last space of the template's literal text
    before the first slot of a category (or `{mask}`). The space belongs to the question. Tokenizers split texts at
    spaces and attach a space to the following word. So the tokens of the two parts, joined, are those of the full text,
    and the model can process a context that many questions share only once.
    """

    name: str
    context_format: str  # the format string of the context, with slots of the argument only
    question_formats: tuple[str, ...]  # the format strings of the question: one, or those before and after {mask}
    descriptions: tuple[str, ...]  # [C], in the order of `labels`; empty when the labels are not the categories
    labels: tuple[str, ...] = VALUES.labels  # the labels of the task

    def context(self, argument: Argument) -> str:
        """The part of the text that all questions about an argument share. Empty when the template begins with a
        category."""
        return self.context_format.format(**argument_slots(argument))

    def question(self, category: int, argument: Argument) -> tuple[str, ...]:
        """The rest of the text for one category: one text, or two with `{mask}`, before and after the mask tokens.

        The formulation puts as many mask tokens between them as the answer has tokens. The first text does not end in a
        space, because the first token of an answer includes the space before it.
        """
        slots = argument_slots(argument)
        if self.descriptions:
            slots |= {"category": self.labels[category], "description": self.descriptions[category]}
        first, *rest = (text.format(**slots) for text in self.question_formats)
        return (first.rstrip(), *rest) if rest else (first,)

    @property
    def has_mask(self) -> bool:
        return len(self.question_formats) == 2

    @property
    def shares_context(self) -> bool:
        """Whether `question` is the same for all arguments: all slots of the argument are in the context."""
        slots = (slot for text in self.question_formats for _, slot, _, _ in string.Formatter().parse(text))
        return not any(slot in ARGUMENT_SLOTS for slot in slots)

    @property
    def text(self) -> str:
        """The text of a file that `load_question_template` reads as this template, with its descriptions."""
        return with_descriptions(
            self.context_format + "{mask}".join(self.question_formats), self.labels, self.descriptions
        )


def load_question_template(
    name: str, descriptions: str | None = None, *, masked: bool | None = None, task: Task = VALUES
) -> QuestionTemplate:
    """Loads a built-in question template, by name, or a user's file, by path.

    `descriptions` is a source of `load_descriptions`. None: those in the file, or else `name`. A final full stop of a
    description is removed. `masked` says whether the template must contain `{mask}` (True), must not (False) or may
    (None). Only the task of values has categories and descriptions.
    Raises ConfigError for an unknown name or slot, for a template without premise or category, for a slot that contains
    the answer, for a missing, forbidden or repeated mask, and for wrong, forbidden or repeated descriptions.
    """
    line, own = _parse_file(name, read_template(name, (*BUILT_IN, *BUILT_IN_STANCE)))
    if not task.has_categories:
        if own is not None:
            raise_template_error(
                f"{name} holds descriptions of the value categories, and data.task is {task.name}: remove them"
            )
        return QuestionTemplate(name, *_split_formats(name, line, masked, task), (), task.labels)
    context, question = _split_formats(name, line, masked, task)
    return QuestionTemplate(name, context, question, _described(name, own, descriptions))


def read_question_file(
    name: str, built_in: Sequence[str], descriptions: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """The line of a template, one of `built_in` or a user's file, and the descriptions [C] of the categories."""
    line, own = _parse_file(name, read_template(name, built_in))
    return line, _described(name, own, descriptions)


def with_descriptions(line: str, labels: Sequence[str], descriptions: Sequence[str]) -> str:
    """The text of a template's file, with its descriptions below it, if there are any."""
    rows = (HEADER, *zip(labels, descriptions, strict=True)) if descriptions else ()
    return "\n".join((line, *map("\t".join, rows)))


def _described(name: str, own: dict[str, str] | None, descriptions: str | None) -> tuple[str, ...]:
    """The descriptions of a template file, or those of the source `descriptions`, without their full stops."""
    if own is not None and descriptions is not None:
        raise_template_error(
            f"{name} holds descriptions of its own: remove them, or leave formulation.descriptions out"
        )
    texts = own or load_descriptions(descriptions or "name")
    return tuple(text.removesuffix(".") for text in texts.values())


def _parse_file(name: str, text: str) -> tuple[str, dict[str, str] | None]:
    """The template as one line, and the descriptions below it or None."""
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    header = "\t".join(HEADER)
    end = lines.index(header) if header in lines else len(lines)
    line = " ".join(" ".join(lines[:end]).split())
    if end == len(lines):
        return line, None
    rows = ((number, *row.partition("\t")[::2]) for number, row in enumerate(lines[end + 1 :], start=end + 2))
    return line, read_descriptions(name, rows)


def _split_formats(name: str, line: str, masked: bool | None, task: Task) -> tuple[str, tuple[str, ...]]:
    """The checked format strings: that of the context, and those of the question."""
    context, parts, slots = None, [""], []
    known = SLOTS if task.has_categories else (*ARGUMENT_SLOTS, "mask")
    for literal, slot in parse_template(name, line, known, task):
        parts[-1] += literal
        if slot is None:
            continue
        slots.append(slot)
        if context is None and slot not in ARGUMENT_SLOTS:
            boundary = max(parts[0].rfind(" "), 0)  # without a space, the context is empty
            context, parts[0] = parts[0][:boundary], parts[0][boundary:]
        if slot == "mask":
            parts.append("")
        else:
            parts[-1] += f"{{{slot}}}"
    if task.has_categories and not any(slot in CATEGORY_SLOTS for slot in slots):
        raise ConfigError(f"template {name}: the slot {{description}} or {{category}} is missing, expected one of them")
    masks = slots.count("mask")
    if masks > 1:
        raise ConfigError(f"template {name}: the slot {{mask}} occurs {masks} times, expected once")
    if masked and not masks:
        raise ConfigError(
            f"template {name}: the slot {{mask}} is missing, expected it where the model fills in Yes or No"
        )
    if masks and masked is False:
        raise ConfigError(f"template {name}: the slot {{mask}} is only for masked language models: remove it")
    return context or "", tuple(parts)
