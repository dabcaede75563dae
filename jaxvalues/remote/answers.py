"""Yes or No to one question at an endpoint: its requests, and the logit that its results give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from jaxvalues.config import Config
from jaxvalues.errors import ConfigError
from jaxvalues.remote.messages import Request, Result
from jaxvalues.remote.probe import Found
from jaxvalues.remote.scoring import Words, log_odds, vote_logit
from jaxvalues.remote.tally import Tally
from jaxvalues.templates.chat import Message, without_first_turn

SAMPLES = 1000
"""The numbers of samples that each seed of a run has."""

CUT = ("length", "content_filter")
"""The finish reasons of answers without their end."""


@dataclass(frozen=True)
class Asker:
    """Writes requests to the endpoint of a config, which can do what was `found`, and reads their results."""

    config: Config
    found: Found

    def __post_init__(self) -> None:
        model, form = self.config.model, self.config.formulation
        if self.scores_words and model.remote.scoring == "logprobs" and not self.found.top_logprobs:
            raise ConfigError(
                f"{model.endpoint} returns no log-probabilities: set model.remote.scoring=votes, which takes several "
                "answers"
            )
        heated = {"model.remote.temperature": model.remote.temperature}
        if form.generates:
            heated["formulation.generation.temperature"] = form.generation.temperature
        for key, value in heated.items():
            if value != 1 and not self.found.temperature:
                raise ConfigError(f"{model.endpoint} takes no temperature: set {key}=1")

    @property
    def scores_words(self) -> bool:
        """Whether questions are answered with Yes or No."""
        return self.config.formulation.kind != "label_list"

    def text_requests(self, messages: Sequence[Message], examples: int = 0) -> Iterator[Request]:
        """The requests for texts, as `formulation.generation` says: one for each sample.

        The first turns of the messages are that many `examples`, which may be left out.
        """
        form = self.config.formulation
        for i in range(form.generation.samples):
            sample = self._sample(i) if form.generation.temperature else 0
            options = {"temperature": form.generation.temperature, "top_p": form.generation.top_p}
            options |= {"seed": sample % 2**31, "examples": examples}
            yield self._request(messages, form.longest_answer, sample, **options)

    def requests(self, messages: Sequence[Message], examples: int = 0) -> Iterator[Request]:
        """The requests of one question: one with log-probabilities, or one for each vote. See `text_requests`."""
        remote = self.config.model.remote
        if remote.scoring == "logprobs":  # at temperature 1: some servers rescale them, others do not
            yield self._request(messages, remote.answer_tokens, logprobs=True, examples=examples)
            return
        for sample in map(self._sample, range(remote.samples)):
            options = {"temperature": remote.temperature, "seed": sample % 2**31, "examples": examples}
            yield self._request(messages, remote.answer_tokens, sample, **options)

    def logit(self, results: Sequence[Result], words: Words, tally: Tally) -> float:
        """The logit of one question; nan where it is missing."""
        votes, why = [], ""
        for answer in results:
            if isinstance(answer, str):
                why = answer
                tally.unanswered += 1
                continue
            tally.answer(answer)
            if self.config.model.remote.scoring == "logprobs":
                odds = None if answer.first is None else log_odds(answer.first, words, answer.bound)
                if odds is not None:
                    tally.score(odds)
                    return odds.logit
                why = tally.cannot_read(answer, "no answer word")
            elif (vote := words.vote(answer.text, answer.finish_reason in CUT)) is None:
                why = tally.cannot_read(answer)
            else:
                votes.append(vote)
        if votes:
            return vote_logit(votes)
        tally.missing[why] += 1
        return float("nan")

    @property
    def how(self) -> str:
        """How logits are had, in words."""
        remote = self.config.model.remote
        if remote.scoring == "votes":
            return f"votes of {remote.samples} answers at temperature {remote.temperature:g}"
        return f"log-probabilities of the first token, {self.found.top_logprobs} returned"

    @property
    def each(self) -> int:
        """The number of requests of one question."""
        remote = self.config.model.remote
        return remote.samples if remote.scoring == "votes" else 1

    def _request(
        self, messages: Sequence[Message], tokens: int, sample: int = 0, *, examples: int, **options: Any
    ) -> Request:
        @cache  # it is looked up several times
        def shorter() -> Request:
            return self._request(without_first_turn(messages), tokens, sample, examples=examples - 1, **options)

        model = self.config.model
        payload = self.found.payload(model.id, messages, tokens, **options) | model.remote.parameters
        return Request(model.endpoint, payload, sample, shorter if examples else None)

    def _sample(self, number: int) -> int:
        """The number of a sample, another one for each seed of a run."""
        return self.config.seed * SAMPLES + number


def grouped(results: Sequence[Result], size: int) -> Iterator[Sequence[Result]]:
    """The results in groups of `size`."""
    return (results[start : start + size] for start in range(0, len(results), size))


def filled(logits: np.ndarray) -> np.ndarray:
    """Logits [n, C] float32 with the mean of its category in the place of each nan; 0 where all are nan.

    Files of logits hold numbers alone. What is missing is left out of scores and thresholds, and never a No.
    """
    known = ~np.isnan(logits)
    total, number = np.where(known, logits, 0.0).sum(axis=0), known.sum(axis=0)
    overall = total.sum() / number.sum() if number.any() else 0.0
    mean = np.where(number > 0, total / np.maximum(number, 1), overall)
    return np.where(known, logits, mean).astype(np.float32)
