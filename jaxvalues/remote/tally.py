"""What was asked about one split, and what came of it: counts for the console and for endpoint.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxvalues.errors import counted
from jaxvalues.remote.messages import Answer
from jaxvalues.remote.scoring import Odds


class Asked(NamedTuple):
    """The logits [n, C] of a split, and which are missing [n, C]: there, the logit is the category's mean."""

    logits: np.ndarray
    missing: np.ndarray
    tally: Tally
    generated: list[dict[str, Any]] | None = None
    """The texts of a formulation that generates some, as `generated-<split>.jsonl` keeps them."""


class Tally:
    """Counts questions, answers and what was wrong with them."""

    def __init__(self) -> None:
        self.questions = 0
        self.missing = Counter[str]()
        """{why a question has no logit: how many}."""
        self.unanswered = 0
        """Requests without an answer, which are asked again the next time."""
        self.finish_reasons = Counter[str]()
        self.unreadable = Counter[str]()
        """Answers that say neither Yes nor No: `filtered`, `empty`, `truncated`, `unparsed` or `no answer word`."""
        self.statuses = Counter[str]()
        """What generated texts are: `answered`, `unparsed`, `truncated`, `empty`."""
        self.bounded = Counter[str]()
        """Questions with a bound in the place of a side: `yes` or `no`."""
        self.examples_left_out = Counter[int]()
        """{number of examples left out: requests}, of requests that were too long for the endpoint."""
        self.words: dict[str, float] = {}
        """{token: summed probability} of the answer words."""
        self.scored, self.mass = 0, 0.0
        self.prompt_tokens = self.completion_tokens = 0

    def answer(self, answer: Answer) -> None:
        """Count an answer."""
        self.finish_reasons[answer.finish_reason] += 1
        self.prompt_tokens += answer.prompt_tokens or 0
        self.completion_tokens += answer.completion_tokens or 0

    def cannot_read(self, answer: Answer, why: str = "") -> str:
        """Count an answer that says neither Yes nor No; in a word or two why, unless that is known."""
        if answer.finish_reason == "content_filter":
            why = "filtered"
        elif not why:
            truncated = "truncated" if answer.finish_reason == "length" else "unparsed"
            why = truncated if answer.text.strip() else "empty"
        self.unreadable[why] += 1
        return why

    def score(self, odds: Odds) -> None:
        """Count a question whose logit comes from log-probabilities."""
        self.scored += 1
        self.mass += odds.mass
        if odds.bounded is not None:
            self.bounded[odds.bounded] += 1
        for token, probability in odds.words.items():
            self.words[token] = self.words.get(token, 0.0) + probability

    @property
    def mean_mass(self) -> float | None:
        """The mean probability of the answer words; None without log-probabilities."""
        return self.mass / self.scored if self.scored else None

    def lines(self) -> list[str]:
        """Sentences about it."""
        without = sum(self.missing.values())
        said = [f"{self.questions - without:,} of {counted(self.questions, 'question')} answered"]
        if without:
            why = ", ".join(f"{reason} {number:,}" for reason, number in self.missing.most_common())
            said[0] += f"; {without:,} {'is' if without == 1 else 'are'} missing ({why})"
        if self.mean_mass is not None:
            said[0] += f"; the answer words have {self.mean_mass:.3f} of the probability"
            for side, number in sorted(self.bounded.items()):
                said[0] += f"; no {side.capitalize()} among the tokens returned: {number:,}"
            if self.mean_mass < 0.5:
                said.append(
                    "WARNING: the model's first token is mostly neither Yes nor No; another template, or "
                    "model.remote.scoring=votes, may ask it better"
                )
        if shorter := self.examples_left_out.total():
            left_out = sum(number * requests for number, requests in self.examples_left_out.items())
            said.append(
                f"too long for the endpoint with all examples: {counted(shorter, 'request')}, asked with "
                f"{left_out / shorter:.1f} examples fewer on average"
            )
        if self.statuses:
            said.append("generated texts: " + ", ".join(f"{name} {n:,}" for name, n in self.statuses.most_common()))
        if self.unreadable:
            said.append(
                "answers that say neither Yes nor No: "
                + ", ".join(f"{why} {number:,}" for why, number in self.unreadable.most_common())
            )
        return said

    def to_json(self) -> Mapping[str, Any]:
        """A plain dict for `json.dump`."""
        words = {token: total / self.scored for token, total in sorted(self.words.items(), key=lambda one: -one[1])}
        return {
            "questions": self.questions,
            "answered": self.questions - sum(self.missing.values()),
            "missing": dict(self.missing),
            "finish_reasons": dict(self.finish_reasons),
            "unreadable": dict(self.unreadable),
            "answers": dict(self.statuses),
            "bounded": dict(self.bounded),
            "examples_left_out": dict(self.examples_left_out),
            "answer_mass": self.mean_mass,
            "answer_words": words,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }
