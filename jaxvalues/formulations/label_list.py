"""`label_list`: one prompt about all categories, whose answer is generated; the names in it are the categories.

Answers of this kind name fewer values than there are (1.7 to 2.0 of 3.03 for GPT-3.5), which no threshold can repair.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from jaxvalues.config import FormulationConfig
from jaxvalues.data.arguments import Argument
from jaxvalues.data.batches import Tokens
from jaxvalues.data.conclusions import normalize_conclusion
from jaxvalues.formulations.examples import Examples, Shown
from jaxvalues.formulations.prompt_rows import ArgumentRows, PromptWriter
from jaxvalues.models import Outputs
from jaxvalues.templates.chat import answer_of
from jaxvalues.templates.turns import ListTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOTHING = ("none", "no values", "no value", "no values apply", "no value applies", "nothing", "n a")
"""Items that say that no category applies; "none of the above" and the like do too."""
UNPARSED = {"no": -1.0, "undecided": 0.0}
"""The logits of `formulation.generation.unparsed`."""
_ITEMS = re.compile(
    r"[,;\n•]|(?<!\S)[*-]\s|(?<!\S)\d+[.)]\s"
    r"|\b(?:values?|answers?|categories|category|labels?)(?:\"?\s*:|\s+(?:is|are|includes?)\b:?)",
    re.I,
)
_PARTS = re.compile(r"\band\b|\bor\b|[&/|()\t+]", re.I)

Status = Literal["answered", "unparsed", "truncated", "empty"]
"""`answered`: it names a category, or none by a word of NOTHING. Of the others, `truncated` ended at the limit."""


class Parsed(NamedTuple):
    """What a generated text says: its status, and the categories [C] bool that it names."""

    status: Status
    found: np.ndarray


@dataclass(frozen=True)
class ListReader:
    """Reads lists of categories. `labels` are the names of the categories, `unparsed` is the logit of `vote`."""

    labels: tuple[str, ...]
    unparsed: float

    def parse(self, text: str, finish_reason: str) -> Parsed:
        """The categories that a text names, whole names only.

        A name of several words may stand anywhere, one of a single word at the beginning of an item or as a whole part
        of it ("Hedonism and Face"), because "face" and "tradition" are words of prose too. Negation is not handled.
        """
        answer = answer_of(text)
        split = _ITEMS.split(answer)
        items = [normalize_conclusion(item) for item in split]
        parts = {normalize_conclusion(part) for item in split for part in _PARTS.split(item)}
        whole = f" {normalize_conclusion(answer)} "
        found = np.array(
            [
                name in parts
                or any(item == name or item.startswith(f"{name} ") for item in items)
                or (" " in name and f" {name} " in whole)
                for name in self._names
            ]
        )
        if found.any() or any(item in NOTHING or item.startswith("none of ") for item in items):
            return Parsed("answered", found)
        if finish_reason == "length":
            return Parsed("truncated", found)
        return Parsed("unparsed" if whole.strip() else "empty", found)

    def vote(self, parsed: Parsed) -> np.ndarray:
        """The logits [C] of a text: 1 for the categories that it names, -1 for others; those of `unparsed` if none."""
        if parsed.status != "answered":
            return np.full(len(self.labels), self.unparsed, np.float32)
        return np.where(parsed.found, 1.0, -1.0).astype(np.float32)

    @cached_property
    def _names(self) -> list[str]:
        return [normalize_conclusion(label) for label in self.labels]


def told(labels: Sequence[str], shown: Shown) -> str:
    """The answer of an example: the names of its categories."""
    named = [name for name, label in zip(labels, shown.labels, strict=True) if label == 1]
    return ", ".join(named) or NOTHING[0].capitalize()


@dataclass(frozen=True)
class LabelList(ListReader):
    """The formulation `label_list`. Nothing trains in it."""

    rows: ArgumentRows

    @classmethod
    def make(
        cls,
        config: FormulationConfig,
        tokenizer: PreTrainedTokenizerBase,
        template: ListTemplate,
        max_length: int,
        *,
        examples: Examples | None = None,
    ) -> LabelList:
        """The formulation of a config. Raises ConfigError for a template that is too long."""

        writer, tell = PromptWriter.make(config, tokenizer), partial(told, template.labels)
        rows = ArgumentRows(writer, template.question, max_length, examples, tell)
        return cls(template.labels, UNPARSED[config.generation.unparsed], rows)

    @property
    def constants(self) -> tuple[int, ...]:
        return ()

    def encode(self, arguments: Sequence[Argument], labels: np.ndarray | None = None) -> Tokens:
        """See `ArgumentRows.encode`."""
        return self.rows.encode(arguments, labels)

    def forward(self, *args: object, **options: object) -> Outputs:
        raise NotImplementedError("label_list reads generated texts, see `vote`")
