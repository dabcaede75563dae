"""What a language model was asked and how it answered: the record of a split in language_model.json.

Most mistakes with prompts are silent: two BOS, an answer word that is never the next token, arguments cut short. The
record shows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvalues.data.arguments import Split
from jaxvalues.data.batches import Tokens
from jaxvalues.formulations.answer import Answer
from jaxvalues.run.system import System
from jaxvalues.templates.chat import count_bos

ENDS = 16
"""The number of token ids that are kept of each end of a prompt."""


def prompt_record(system: System, split: Split, tokens: Tokens, mass: np.ndarray | None = None) -> dict[str, Any]:
    """The record of a split: its first prompt, what was cut, the answer words and their probability `mass` [n, C].

    The mass is that of all answer words together, before each answer.
    """
    record: dict[str, Any] = {
        "arguments": len(split),
        "truncated": tokens.truncated,
        "truncation_rate": tokens.truncated / max(len(split), 1),
        "fewer_examples": tokens.fewer_examples,
        "examples_left_out": tokens.examples_left_out / max(len(tokens), 1),
    }
    if len(tokens):
        record["first_prompt"] = _first_prompt(system, split, tokens)
    if isinstance(system.formulation, Answer):
        record["answer_words"] = _words(system)
    if mass is not None and mass.size:
        each = dict(zip(system.template.labels, map(float, mass.mean(axis=0)), strict=True))
        record["answer_mass"] = {"mean": float(mass.mean()), "lowest": float(mass.min()), "by_label": each}
    return record


def _first_prompt(system: System, split: Split, tokens: Tokens) -> dict[str, Any]:
    """The first prompt as text and token ids. Of questions that branch, the first one is shown."""
    ids: Sequence[int] = tokens.ids[0].tolist()
    if tokens.questions is not None and tokens.questions.question_ids is not None:
        branch = tokens.questions.question_ids[tokens.questions.categories[0, 0]]
        ids = [*ids, *branch[branch >= 0].tolist()]
    return {
        "argument": split.ids[0],
        "text": system.tokenizer.decode(ids),
        "tokens": len(ids),
        "bos": count_bos(system.tokenizer, ids),
        "first_ids": ids[:ENDS],
        "last_ids": ids[-ENDS:],
    }


def _words(system: System) -> list[dict[str, Any]]:
    """The answer words as they are scored."""
    verbalizer = system.formulation.verbalizer
    rows = ([id for id in row.tolist() if id >= 0] for row in verbalizer.ids)
    return [
        {"answer": "yes" if is_yes else "no", "text": system.tokenizer.decode(ids), "ids": ids}
        for ids, is_yes in zip(rows, verbalizer.is_yes, strict=True)
    ]
