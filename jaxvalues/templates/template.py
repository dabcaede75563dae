"""Templates: text files that turn an argument into what a model reads.

A template is one line of text with slots in braces: `{premise}`, `{conclusion}`, `{stance}` and `{sep}`, which stands
for the tokenizer's separator token; `{{` and `}}` are braces. Those of jaxvalues lie in `data/templates/`; a path names
a user's own.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NoReturn

from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument
from jaxvalues.data.task import VALUES, Task
from jaxvalues.data.text import read_text
from jaxvalues.errors import ConfigError
from jaxvalues.templates.descriptions import load_descriptions

OWN = ("cls", "joined", "stance")
"""The templates of this kind that come with jaxvalues."""
ARGUMENT_SLOTS = ("premise", "conclusion", "stance")
SLOTS = (*ARGUMENT_SLOTS, "sep")
STANCES = {IN_FAVOR: "supporting", AGAINST: "against"}  # how the paper's templates word them


@dataclass(frozen=True)
class Template:
    """A checked template. `segments` are the stretches of text between separator tokens.

    `descriptions` say what the categories mean; they are one more segment at the end of every input.
    """

    name: str
    segments: tuple[str, ...]
    descriptions: str | None = None

    def render(self, argument: Argument) -> list[str]:
        """The argument as one text a segment."""
        slots = argument_slots(argument)
        rendered = [segment.format(**slots) for segment in self.segments]
        return rendered if self.descriptions is None else [*rendered, self.descriptions]

    @property
    def text(self) -> str:
        """The text of a file that `load_template` reads as this template, descriptions included."""
        described = () if self.descriptions is None else (escape(self.descriptions),)
        return " {sep} ".join((*self.segments, *described))


def load_template(name: str, descriptions: str | None = None, task: Task = VALUES) -> Template:
    """A template that comes with jaxvalues, by name, or a user's file, by path.

    `descriptions` is a source of `load_descriptions`: what the 20 categories mean, appended as one more segment.
    Raises ConfigError for an unknown name, an unknown slot, one that gives away what the task asks for, a template that
    never shows the premise, and a separator with nothing before or after it.
    """
    segments = _split(name, " ".join(read_template(name, OWN).split()), task)
    return Template(name, segments, None if descriptions is None else _join(load_descriptions(descriptions)))


def read_template(name: str, own: Sequence[str]) -> str:
    """The text of a template that comes with jaxvalues, one of `own`, or of a user's file, by path.

    Raises ConfigError, with the known names, when there is neither, and for a file that is not plain text.
    """
    if name in own:
        return resources.files("jaxvalues.templates").joinpath("texts", f"{name}.txt").read_text(encoding="utf-8")
    if not Path(name).is_file():
        refuse(f"no template `{name}` (known: {', '.join(own)}) and no text file there")
    return read_text(Path(name), refuse)


def parse_template(name: str, text: str, slots: Sequence[str], task: Task = VALUES) -> Iterator[tuple[str, str | None]]:
    """The pieces of a template's text, in turn: literal text, ready for `str.format`, and the slot after it, if any.

    Raises ConfigError for unpaired braces, for a slot that is not one of `slots` or that gives away what the task asks
    for, and, in the end, for a template that never shows the premise.
    """
    shows_premise, known = False, [slot for slot in slots if slot != task.asked_slot]
    try:
        for literal, slot, spec, conversion in string.Formatter().parse(text):
            if slot is not None and slot == task.asked_slot:
                raise ConfigError(
                    f"template {name}: the slot {{{slot}}} gives away what data.task {task.name} asks for: leave it out"
                )
            if slot is not None and (slot not in slots or spec or conversion):
                written = slot + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
                raise ConfigError(f"template {name}: unknown slot {{{written}}}; known slots: {', '.join(known)}")
            shows_premise |= slot == "premise"
            yield escape(literal), slot
    except ValueError as error:
        raise ConfigError(f"template {name}: {error}") from None
    if not shows_premise:
        raise ConfigError(f"template {name}: the slot {{premise}} is missing")


def argument_slots(argument: Argument) -> dict[str, str]:
    """What the slots of an argument are filled with."""
    return {"premise": argument.premise, "conclusion": argument.conclusion, "stance": STANCES[argument.stance]}


def escape(text: str) -> str:
    """Text such that `str.format` gives it back: braces are doubled."""
    return text.replace("{", "{{").replace("}", "}}")


def refuse(problem: str) -> NoReturn:
    """Raise the ConfigError that says what is wrong with `formulation.template`."""
    raise ConfigError(f"formulation.template: {problem}")


def _split(name: str, text: str, task: Task) -> tuple[str, ...]:
    """The segments of a template's text, checked."""
    segments = [""]
    for literal, slot in parse_template(name, text, SLOTS, task):
        segments[-1] += literal
        if slot == "sep":
            segments.append("")
        elif slot is not None:
            segments[-1] += f"{{{slot}}}"
    segments = [segment.strip() for segment in segments]
    if not (segments[0] and segments[-1]):  # between others, nothing is RoBERTa's double separator
        raise ConfigError(f"template {name}: {{sep}} must stand between two texts, not at the beginning or the end")
    return tuple(segments)


def _join(descriptions: dict[str, str]) -> str:
    return "; ".join(text.removesuffix(".") for text in descriptions.values())
