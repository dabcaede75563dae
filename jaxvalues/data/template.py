"""Templates: text files that turn an argument into what a model reads.

A template is one line of text with slots in braces: `{premise}`, `{conclusion}`, `{stance}` and `{sep}`, which stands
for the tokenizer's separator token; `{{` and `}}` are braces. Those of jaxvalues lie in `data/templates/`; a path names
a user's own.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument
from jaxvalues.data.descriptions import load_descriptions
from jaxvalues.data.text import read_text
from jaxvalues.errors import ConfigError

SLOTS = ("premise", "conclusion", "stance", "sep")
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
        slots = {
            "premise": argument.premise,
            "conclusion": argument.conclusion,
            "stance": STANCES[argument.stance],
        }
        rendered = [segment.format(**slots) for segment in self.segments]
        return rendered if self.descriptions is None else [*rendered, self.descriptions]

    @property
    def text(self) -> str:
        """The text of a file that `load_template` reads as this template, descriptions included."""
        described = () if self.descriptions is None else (_escape(self.descriptions),)
        return " {sep} ".join((*self.segments, *described))


def load_template(name: str, descriptions: str | None = None) -> Template:
    """A template that comes with jaxvalues, by name, or a user's file, by path.

    `descriptions` is a source of `load_descriptions`: what the 20 categories mean, appended as one more segment.
    Raises ConfigError for an unknown name, an unknown slot, a template that never shows the premise, and a separator
    with nothing before or after it.
    """
    segments = _split(name, " ".join(_read(name).split()))
    return Template(name, segments, None if descriptions is None else _join(load_descriptions(descriptions)))


def _read(name: str) -> str:
    folder = resources.files("jaxvalues.data").joinpath("templates")
    own = {Path(file.name).stem: file for file in folder.iterdir() if file.name.endswith(".txt")}
    if name in own:
        return own[name].read_text(encoding="utf-8")
    if not Path(name).is_file():
        known = ", ".join(sorted(own))
        raise ConfigError(f"formulation.template: no template `{name}` (known: {known}) and no text file there")
    return read_text(Path(name), _refuse)


def _refuse(problem: str) -> None:
    raise ConfigError(f"formulation.template: {problem}")


def _split(name: str, text: str) -> tuple[str, ...]:
    """The segments of a template's text, checked."""
    segments, slots = [""], []
    try:
        for literal, slot, spec, conversion in string.Formatter().parse(text):
            segments[-1] += _escape(literal)
            if slot is None:
                continue
            if slot not in SLOTS or spec or conversion:
                written = slot + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
                raise ConfigError(f"template {name}: unknown slot {{{written}}}; known slots: {', '.join(SLOTS)}")
            slots.append(slot)
            if slot == "sep":
                segments.append("")
            else:
                segments[-1] += f"{{{slot}}}"
    except ValueError as error:
        raise ConfigError(f"template {name}: {error}") from None
    segments = [segment.strip() for segment in segments]
    if "premise" not in slots:
        raise ConfigError(f"template {name}: the slot {{premise}} is missing")
    if not (segments[0] and segments[-1]):  # between others, nothing is RoBERTa's double separator
        raise ConfigError(f"template {name}: {{sep}} must stand between two texts, not at the beginning or the end")
    return tuple(segments)


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _join(descriptions: dict[str, str]) -> str:
    return "; ".join(text.removesuffix(".") for text in descriptions.values())
