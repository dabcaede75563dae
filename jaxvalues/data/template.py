"""Templates: text files that turn an argument into what a model reads.

A template is one line of text with slots in braces: `{premise}`, `{conclusion}`, `{stance}` and `{sep}`, which stands
for the tokenizer's separator token; `{{` and `}}` are braces. Those of jaxvalues lie in `data/templates/`; a path names
a user's own.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument
from jaxvalues.errors import ConfigError

SLOTS = ("premise", "conclusion", "stance", "sep")
STANCES = {IN_FAVOR: "supporting", AGAINST: "against"}  # how the paper's templates word them


@dataclass(frozen=True)
class Template:
    """A checked template. `segments` are the stretches of text between separator tokens."""

    name: str
    segments: tuple[str, ...]

    def render(self, argument: Argument) -> list[str]:
        """The argument as one text a segment."""
        slots = {
            "premise": argument.premise,
            "conclusion": argument.conclusion,
            "stance": STANCES[argument.stance],
        }
        return [segment.format(**slots) for segment in self.segments]


def load_template(name: str) -> Template:
    """A template that comes with jaxvalues, by name, or a user's file, by path.

    Raises ConfigError for an unknown name, an unknown slot or a template that never shows the premise.
    """
    folder = resources.files("jaxvalues.data").joinpath("templates")
    own = {Path(file.name).stem: file for file in folder.iterdir() if file.name.endswith(".txt")}
    source = own.get(name, Path(name))
    try:
        text = " ".join(source.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError):
        known = ", ".join(sorted(own))
        raise ConfigError(
            f"formulation.template: no template `{name}` (known: {known}) and no text file there"
        ) from None
    try:
        pieces = [piece for piece in string.Formatter().parse(text) if piece[1] is not None]
    except ValueError as error:
        raise ConfigError(f"template {name}: {error}") from None
    slots = [slot for _, slot, _, _ in pieces]
    for _, slot, spec, conversion in pieces:
        if slot not in SLOTS or spec or conversion:
            written = slot + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise ConfigError(f"template {name}: unknown slot {{{written}}}; known slots: {', '.join(SLOTS)}")
    if "premise" not in slots:
        raise ConfigError(f"template {name}: the slot {{premise}} is missing")
    return Template(name, tuple(segment.strip() for segment in re.split(r"(?<!{){sep}", text)))
