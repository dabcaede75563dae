"""`answer` at an endpoint: a question about each value of each argument, answered with Yes or No."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxvalues.config import Config
from jaxvalues.data.arguments import Argument
from jaxvalues.errors import ConfigError
from jaxvalues.remote.messages import Request, Result
from jaxvalues.remote.probe import Found
from jaxvalues.remote.rounds import Rounds
from jaxvalues.remote.scoring import Words, log_odds, vote_logit
from jaxvalues.remote.tally import Asked, Tally
from jaxvalues.templates.questions import QuestionTemplate

SAMPLES = 1000
"""The numbers of samples that each seed of a run has."""


@dataclass(frozen=True)
class YesOrNo:
    """Asks about every value of every argument."""

    config: Config
    template: QuestionTemplate
    found: Found

    def __post_init__(self) -> None:
        remote, endpoint = self.config.model.remote, self.config.model.endpoint
        if remote.scoring == "logprobs" and not self.found.top_logprobs:
            raise ConfigError(
                f"{endpoint} returns no log-probabilities: set model.remote.scoring=votes, which takes several answers"
            )
        if remote.temperature != 1 and not self.found.temperature:
            raise ConfigError(f"{endpoint} takes no temperature: set model.remote.temperature=1")

    def rounds(self, arguments: Sequence[Argument]) -> Rounds:
        """One round: the question about every value of every argument, each as often as samples are taken."""
        results = yield list(self.requests(arguments))
        samples, words = self._samples, Words.of(self.config.formulation.verbalizer)
        tally = Tally()
        logits = np.full((len(arguments), len(self.template.labels)), np.nan, np.float64)
        tally.questions = logits.size
        for cell in range(logits.size):
            mine = slice(cell * samples, (cell + 1) * samples)
            logits.flat[cell] = self._logit(results[mine], words, tally)
        missing = np.isnan(logits)
        return Asked(filled(logits), missing, tally)

    def requests(self, arguments: Sequence[Argument]) -> Iterator[Request]:
        """The requests of the round: by argument, value and sample."""
        model, form = self.config.model, self.template
        for argument in arguments:
            for category in range(len(form.labels)):
                (question,) = form.question(category, argument)
                messages = [{"role": "user", "content": f"{form.context(argument)}{question}".strip()}]
                for i in range(self._samples):
                    if model.remote.scoring == "logprobs":  # at temperature 1: some servers rescale, others do not
                        payload = self.found.payload(model.id, messages, model.remote.answer_tokens, logprobs=True)
                        yield Request(model.endpoint, payload)
                        continue
                    sample = self.config.seed * SAMPLES + i
                    payload = self.found.payload(
                        model.id,
                        messages,
                        model.remote.answer_tokens,
                        temperature=model.remote.temperature,
                        seed=sample % 2**31,
                    )
                    yield Request(model.endpoint, payload, sample)

    def _logit(self, results: Sequence[Result], words: Words, tally: Tally) -> float:
        """The logit of one question; nan where it is missing."""
        votes, why = [], ""
        for answer in results:
            if isinstance(answer, str):
                why = answer
                continue
            tally.answer(answer)
            if self.config.model.remote.scoring == "logprobs":
                odds = None if answer.first is None else log_odds(answer.first, words)
                if odds is not None:
                    tally.score(odds)
                    return odds.logit
                why = tally.cannot_read(answer, "no answer word")
            elif (vote := words.vote(answer.text)) is None:
                why = tally.cannot_read(answer)
            else:
                votes.append(vote)
        if votes:
            return vote_logit(votes)
        tally.missing[why] += 1
        return float("nan")

    @property
    def number_of_rounds(self) -> int:
        return 1

    @property
    def how(self) -> str:
        """How logits are had, in words."""
        remote = self.config.model.remote
        if remote.scoring == "votes":
            return f"votes of {remote.samples} answers at temperature {remote.temperature:g}"
        return f"log-probabilities of the first token, {self.found.top_logprobs} returned"

    @property
    def _samples(self) -> int:
        remote = self.config.model.remote
        return remote.samples if remote.scoring == "votes" else 1


def filled(logits: np.ndarray) -> np.ndarray:
    """Logits [n, C] float32 with the mean of its category in the place of each nan; 0 where all are nan.

    Files of logits hold numbers alone. What is missing is left out of scores and thresholds, and never a No.
    """
    known = ~np.isnan(logits)
    total, number = np.where(known, logits, 0.0).sum(axis=0), known.sum(axis=0)
    overall = total.sum() / number.sum() if number.any() else 0.0
    mean = np.where(number > 0, total / np.maximum(number, 1), overall)
    return np.where(known, logits, mean).astype(np.float32)
