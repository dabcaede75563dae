"""Question templates: text files that ask a language model, category by category, whether an argument draws on it.

A question template has the slots of an argument, `{premise}`, `{conclusion}` and `{stance}` (see `templates.template`),
and of a category: `{description}`, what it means, and `{category}`, its name. `{mask}` is where a masked language model
answers. Those of jaxvalues are the study's (arXiv 2403.09720): `masked_choice` (MBC), `answer` (BCA) and `open_answer`
(OA); `stance_masked` and `stance_answer` ask once an argument, for its stance.

A file may hold its own descriptions: below the template, a line `Category<TAB>Description` and a row for each category.
So one file is all that a run needs to remember, and `QuestionTemplate.text` is what stands in it.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from jaxvalues.data.arguments import Argument
from jaxvalues.data.task import VALUES, Task
from jaxvalues.errors import ConfigError
from jaxvalues.templates.descriptions import HEADER, load_descriptions, read_descriptions
from jaxvalues.templates.template import ARGUMENT_SLOTS, argument_slots, parse_template, read_template, refuse

OWN = ("masked_choice", "answer", "open_answer")
OF_STANCE = ("stance_masked", "stance_answer")
"""The question templates that come with jaxvalues: of the values, and of the stance."""
CATEGORY_SLOTS = ("description", "category")
SLOTS = (*ARGUMENT_SLOTS, *CATEGORY_SLOTS, "mask")


@dataclass(frozen=True)
class QuestionTemplate:
    """A checked question template, with a question for each label of its task, such as the 20 described categories.

    The text of a question is `context` followed by `question`.

    The cut between the two is the last blank of the template's own words before the first slot of a category (or
    `{mask}`), and the blank belongs to the question. Tokenizers part texts at a blank and give it to the word after it,
    so the tokens of both parts, put together, are those of the whole text, and a context that many questions share need
    be read only once.
    """

    name: str
    before: str  # of the cut: a format of the argument's slots
    after: tuple[str, ...]  # of the cut: formats around {mask}
    descriptions: tuple[str, ...]  # [C], in the order of `labels`; none where these are not the categories
    labels: tuple[str, ...] = VALUES.labels  # of the task

    def context(self, argument: Argument) -> str:
        """What is read of an argument before its questions part ways: nothing, where a category comes first."""
        return self.before.format(**argument_slots(argument))

    def question(self, category: int, argument: Argument) -> tuple[str, ...]:
        """The rest of the text for one category, in one piece, or the two pieces before and after the mask.

        A formulation puts as many mask tokens between the two as the answer is long. No blank stands before them: masks
        take the place of whole words, the blank before them included.
        """
        slots = argument_slots(argument)
        if self.descriptions:
            slots |= {"category": self.labels[category], "description": self.descriptions[category]}
        first, *rest = (piece.format(**slots) for piece in self.after)
        return (first.rstrip(), *rest) if rest else (first,)

    @property
    def has_mask(self) -> bool:
        return len(self.after) == 2

    @property
    def shares_context(self) -> bool:
        """Whether `question` is the same for every argument: all slots of the argument come before the cut."""
        slots = (slot for piece in self.after for _, slot, _, _ in string.Formatter().parse(piece))
        return not any(slot in ARGUMENT_SLOTS for slot in slots)

    @property
    def text(self) -> str:
        """The text of a file that `load_question_template` reads as this template, descriptions included."""
        rows = (HEADER, *zip(self.labels, self.descriptions, strict=True)) if self.descriptions else ()
        return "\n".join((self.before + "{mask}".join(self.after), *map("\t".join, rows)))


def load_question_template(
    name: str, descriptions: str | None = None, *, masked: bool | None = None, task: Task = VALUES
) -> QuestionTemplate:
    """A question template that comes with jaxvalues, by name, or a user's file, by path.

    `descriptions` is a source of `load_descriptions` (None: the file's own, else `name`); the full stop that a
    description may end in is left to the template. `masked` says whether `{mask}` must stand in it (True), must not
    (False) or may (None). Categories and descriptions belong to the task of values; another's template asks once.
    Raises ConfigError for an unknown name, an unknown slot, a template without premise or without category, for a slot
    that gives away what the task asks for, for a mask that is missing, unwanted or there twice, and for descriptions
    that are wrong, unwanted or given twice.
    """
    line, own = _parse_file(name, read_template(name, (*OWN, *OF_STANCE)))
    if not task.has_categories:
        if own is not None:
            refuse(f"{name} holds descriptions of the value categories, and data.task is {task.name}: remove them")
        return QuestionTemplate(name, *_cut(name, line, masked, task), (), task.labels)
    if own is not None and descriptions is not None:
        refuse(f"{name} holds descriptions of its own: remove them, or leave formulation.descriptions out")
    before, after = _cut(name, line, masked, task)
    texts = own or load_descriptions(descriptions or "name")
    return QuestionTemplate(name, before, after, tuple(text.removesuffix(".") for text in texts.values()))


def _parse_file(name: str, text: str) -> tuple[str, dict[str, str] | None]:
    """The template as one line, and the descriptions below it, if any."""
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    header = "\t".join(HEADER)
    end = lines.index(header) if header in lines else len(lines)
    line = " ".join(" ".join(lines[:end]).split())
    if end == len(lines):
        return line, None
    rows = ((number, *row.partition("\t")[::2]) for number, row in enumerate(lines[end + 1 :], start=end + 2))
    return line, read_descriptions(name, rows)


def _cut(name: str, line: str, masked: bool | None, task: Task) -> tuple[str, tuple[str, ...]]:
    """The formats before and after the cut, the latter parted at the mask; checked."""
    before, pieces, slots = None, [""], []
    known = SLOTS if task.has_categories else (*ARGUMENT_SLOTS, "mask")
    for literal, slot in parse_template(name, line, known, task):
        pieces[-1] += literal
        if slot is None:
            continue
        slots.append(slot)
        if before is None and slot not in ARGUMENT_SLOTS:
            cut = max(pieces[0].rfind(" "), 0)  # without any blank, all of it is the question
            before, pieces[0] = pieces[0][:cut], pieces[0][cut:]
        if slot == "mask":
            pieces.append("")
        else:
            pieces[-1] += f"{{{slot}}}"
    if task.has_categories and not any(slot in CATEGORY_SLOTS for slot in slots):
        raise ConfigError(f"template {name}: it names no category: the slot {{description}} or {{category}} is missing")
    masks = slots.count("mask")
    if masks > 1:
        raise ConfigError(f"template {name}: the slot {{mask}} stands in it {masks} times, expected once")
    if masked and not masks:
        raise ConfigError(f"template {name}: the slot {{mask}} is missing: there a masked language model answers")
    if masks and masked is False:
        raise ConfigError(f"template {name}: only a masked language model answers at {{mask}}: leave the slot out")
    return before or "", tuple(pieces)
