"""Templates: text files that define the input text of an argument.

A template is one line of text with slots in braces: `{premise}`, `{conclusion}`, `{stance}` and `{sep}`, the
tokenizer's separator token. `{{` and `}}` are literal braces. The built-in templates are in `templates/texts/`. A path
names a user's file.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NoReturn

from jaxvalues.config.reading import user_path
from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument
from jaxvalues.data.task import VALUES, Task
from jaxvalues.data.text import read_text
from jaxvalues.errors import ConfigError
from jaxvalues.templates.descriptions import load_descriptions

BUILT_IN = ("cls", "joined", "stance")
"""The names of the built-in templates."""
ARGUMENT_SLOTS = ("premise", "conclusion", "stance")
SLOTS = (*ARGUMENT_SLOTS, "sep")
STANCES = {IN_FAVOR: "supporting", AGAINST: "against"}  # the words of the study's templates


@dataclass(frozen=True)
class Template:
    """A checked template, which renders arguments as texts.

    `segments` are format strings, between which separator tokens stand. `descriptions` explain the categories; they are
    the last segment of every input.
    """

    name: str
    segments: tuple[str, ...]
    descriptions: str | None = None

    def render(self, argument: Argument) -> list[str]:
        """The texts of an argument, one for each segment."""
        slots = argument_slots(argument)
        rendered = [segment.format(**slots) for segment in self.segments]
        return rendered if self.descriptions is None else [*rendered, self.descriptions]

    @property
    def text(self) -> str:
        """The text of a file that `load_template` reads as this template, with its descriptions."""
        described = () if self.descriptions is None else (escape(self.descriptions),)
        return " {sep} ".join((*self.segments, *described))


def load_template(name: str, descriptions: str | None = None, task: Task = VALUES) -> Template:
    """Loads a built-in template, by name, or a user's file, by path.

    `descriptions` is a source of `load_descriptions`; these are appended as one more segment. Raises ConfigError for an
    unknown name or slot, for a slot that contains the answer, for a template without premise, and for a separator at
    the beginning or the end.
    """
    segments = _split(name, " ".join(read_template(name, BUILT_IN).split()), task)
    return Template(name, segments, None if descriptions is None else _join(load_descriptions(descriptions)))


def read_template(name: str, built_in: Sequence[str]) -> str:
    """The text of a built-in template, whose name is in `built_in`, or of a user's file, by path.

    Raises ConfigError for an unknown name and for a file that is not plain text.
    """
    if name in built_in:
        return resources.files("jaxvalues.templates").joinpath("texts", f"{name}.txt").read_text(encoding="utf-8")
    path = user_path(name)
    if not path.is_file():
        raise_template_error(
            f"`{name}` is neither one of {', '.join(built_in)} nor a text file, seen from the current folder"
        )
    return read_text(path, raise_template_error)


def parse_template(
    name: str, text: str, slots: Sequence[str], task: Task = VALUES, needed: Sequence[str] = ("premise",)
) -> Iterator[tuple[str, str | None]]:
    """The parts of a template's text, in order: literal text, escaped for `str.format`, and the slot after it, if any.

    Raises ConfigError for unpaired braces, for a slot that is not one of `slots` or that contains the answer, and at
    the end for a template without one of the `needed` slots.
    """
    shown, known = set(), [slot for slot in slots if slot != task.answer_slot]
    try:
        for literal, slot, spec, conversion in string.Formatter().parse(text):
            if slot is not None and slot == task.answer_slot:
                raise ConfigError(
                    f"template {name}: the slot {{{slot}}} contains the answer of data.task {task.name}: remove it"
                )
            if slot is not None and (slot not in slots or spec or conversion):
                written = slot + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
                raise ConfigError(f"template {name}: unknown slot {{{written}}}; known slots: {', '.join(known)}")
            shown.add(slot)
            yield escape(literal), slot
    except ValueError as error:
        raise ConfigError(f"template {name}: {error}") from None
    if missing := [slot for slot in needed if slot not in shown]:
        raise ConfigError(f"template {name}: the slot {{{missing[0]}}} is missing")


def argument_slots(argument: Argument) -> dict[str, str]:
    """{slot: text} of an argument."""
    return {"premise": argument.premise, "conclusion": argument.conclusion, "stance": STANCES[argument.stance]}


def escape(text: str) -> str:
    """The text with doubled braces: `str.format` returns the original."""
    return text.replace("{", "{{").replace("}", "}}")


def raise_template_error(problem: str) -> NoReturn:
    """Raises a ConfigError about `formulation.template`."""
    raise ConfigError(f"formulation.template: {problem}")


def _split(name: str, text: str, task: Task) -> tuple[str, ...]:
    """The checked segments of a template's text."""
    segments = [""]
    for literal, slot in parse_template(name, text, SLOTS, task):
        segments[-1] += literal
        if slot == "sep":
            segments.append("")
        elif slot is not None:
            segments[-1] += f"{{{slot}}}"
    segments = [segment.strip() for segment in segments]
    if not (segments[0] and segments[-1]):  # an empty segment between others is RoBERTa's double separator
        raise ConfigError(f"template {name}: {{sep}} must stand between two texts, not at the beginning or the end")
    return tuple(segments)


def _join(descriptions: dict[str, str]) -> str:
    return "; ".join(text.removesuffix(".") for text in descriptions.values())
