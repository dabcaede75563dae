"""Templates of generated answers: a question about all categories at once, and the two turns of a chain of thought.

`label_list` has the slots of an argument and `{values}`, the descriptions of all categories. `chain_of_thought` is the
study's (arXiv 2403.09720): two turns, with ` --- ` between them in a file. The first has the slots of an argument. The
second, which is asked once per category, has `{reply}`, what the model said to the first, those of a category,
`{description}` and `{category}`, and `{synonyms}`. Descriptions may stand below a template, as in
`templates.questions`.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxvalues.data.arguments import Argument
from jaxvalues.data.task import VALUES, Task
from jaxvalues.errors import ConfigError
from jaxvalues.templates.questions import CATEGORY_SLOTS, read_question_file, with_descriptions
from jaxvalues.templates.synonyms import load_synonyms
from jaxvalues.templates.template import ARGUMENT_SLOTS, argument_slots, parse_template

TURNS = " --- "
"""What stands between the two turns in a file."""


@dataclass(frozen=True)
class ListTemplate:
    """A checked template of one question about all categories, whose `descriptions` [C] fill `{values}`."""

    name: str
    format: str
    descriptions: tuple[str, ...]
    labels: tuple[str, ...] = VALUES.labels

    def question(self, argument: Argument) -> str:
        return self.format.format(**argument_slots(argument), values="; ".join(self.descriptions))

    @property
    def text(self) -> str:
        """The text of a file that is read as this template, with its descriptions."""
        return with_descriptions(self.format, self.labels, self.descriptions)


@dataclass(frozen=True)
class ChainTemplate:
    """The checked templates of two turns. `descriptions` and `synonyms` are those of the categories [C]."""

    name: str
    first_format: str
    second_format: str
    descriptions: tuple[str, ...]
    synonyms: dict[str, tuple[str, ...]]
    labels: tuple[str, ...] = VALUES.labels

    def first(self, argument: Argument) -> str:
        return self.first_format.format(**argument_slots(argument))

    def second(self, argument: Argument, category: int, reply: str) -> str:
        label = self.labels[category]
        slots = {"reply": reply, "category": label, "description": self.descriptions[category]}
        slots |= {"synonyms": ", ".join(self.synonyms[label])}
        return self.second_format.format(**argument_slots(argument), **slots)

    @property
    def text(self) -> str:
        """The text of a file that is read as this template, with its descriptions."""
        return with_descriptions(self.first_format + TURNS + self.second_format, self.labels, self.descriptions)


def load_list_template(name: str, descriptions: str | None = None, task: Task = VALUES) -> ListTemplate:
    """Loads the built-in `label_list`, or a user's file, by path. `descriptions` are as in `load_question_template`.

    Raises ConfigError for an unknown name or slot, and for a template without `{premise}` or `{values}`.
    """
    line, texts = read_question_file(name, ("label_list",), descriptions)
    return ListTemplate(name, _format(name, line, (*ARGUMENT_SLOTS, "values"), ("premise", "values"), task), texts)


def load_chain_template(
    name: str, descriptions: str | None = None, synonyms: str | None = None, task: Task = VALUES
) -> ChainTemplate:
    """Loads the built-in `chain_of_thought`, or a user's file, by path; `synonyms` as in `load_synonyms`.

    Raises ConfigError for anything but two turns, an unknown name or slot, a first turn without `{premise}`, and a
    second one without a category or `{reply}`.
    """
    line, texts = read_question_file(name, ("chain_of_thought",), descriptions)
    turns = line.split(TURNS)
    if len(turns) != 2:
        raise ConfigError(f"template {name}: expected two turns with a line of --- between them, not {len(turns)}")
    first = _format(name, turns[0], ARGUMENT_SLOTS, ("premise",), task)
    known = (*ARGUMENT_SLOTS, *CATEGORY_SLOTS, "synonyms", "reply")
    second = _format(name, turns[1], known, ("reply",), task)
    if not any(f"{{{slot}}}" in second for slot in CATEGORY_SLOTS):
        raise ConfigError(f"template {name}: the second turn asks about no {{description}} and no {{category}}")
    return ChainTemplate(name, first, second, texts, load_synonyms(synonyms))


def _format(name: str, text: str, known: tuple[str, ...], needed: tuple[str, ...], task: Task) -> str:
    """The format string of a template's text, checked."""
    parts = [(literal, slot) for literal, slot in parse_template(name, text, known, task, needed)]
    return "".join(literal + ("" if slot is None else f"{{{slot}}}") for literal, slot in parts)
