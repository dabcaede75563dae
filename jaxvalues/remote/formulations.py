"""The formulations of a model that is served elsewhere: `answer`, `label_list` and `chain_of_thought`.

They write the same questions as those of a network here, as messages of a chat, and read what comes back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxvalues.config import Config
from jaxvalues.data.arguments import Argument
from jaxvalues.evaluation.thresholds import EXCLUDED
from jaxvalues.formulations import AnyTemplate
from jaxvalues.formulations.examples import Examples, Shown
from jaxvalues.formulations.label_list import UNPARSED, ListReader, told
from jaxvalues.remote.answers import Asker, filled, grouped
from jaxvalues.remote.messages import Answer, Request, Result
from jaxvalues.remote.probe import Found
from jaxvalues.remote.rounds import Rounds
from jaxvalues.remote.scoring import Words
from jaxvalues.remote.tally import Asked, Tally
from jaxvalues.templates.chat import Message, answer_of, conversation
from jaxvalues.templates.questions import QuestionTemplate
from jaxvalues.templates.turns import ChainTemplate, ListTemplate

Wanted = np.ndarray
"""[n, C] bool: which categories of which arguments are asked about."""


@dataclass(frozen=True)
class RemoteFormulation(ABC):
    """Asks about the categories of arguments. `examples` are shown before each question, where a config has some."""

    asker: Asker
    template: AnyTemplate
    examples: Examples | None = None
    number_of_rounds = 1

    @abstractmethod
    def rounds(self, arguments: Sequence[Argument], wanted: Wanted | None = None) -> Rounds:
        """What is asked about arguments, in rounds; None: about all categories."""

    @property
    @abstractmethod
    def how(self) -> str:
        """What is asked, and how logits are had, in words."""

    @property
    def config(self) -> Config:
        return self.asker.config

    def everything(self, arguments: Sequence[Argument]) -> Wanted:
        return np.ones((len(arguments), len(self.template.labels)), bool)

    def shown(self, arguments: Sequence[Argument]) -> list[list[Shown]]:
        """The examples of each argument."""
        return [[]] * len(arguments) if self.examples is None else self.examples.of(arguments)


@dataclass(frozen=True)
class YesOrNo(RemoteFormulation):
    """`answer`: a question about each category of each argument."""

    template: QuestionTemplate

    @property
    def how(self) -> str:
        return f"{len(self.template.labels)} questions about each, answered Yes or No; {self.asker.how}"

    def rounds(self, arguments: Sequence[Argument], wanted: Wanted | None = None) -> Rounds:
        wanted = self.everything(arguments) if wanted is None else wanted
        results = yield [one for asked in self._messages(arguments, wanted) for one in self.asker.requests(*asked)]
        return answered(self.asker, results, wanted)

    def _messages(self, arguments: Sequence[Argument], wanted: Wanted) -> Iterator[tuple[list[Message], int]]:
        """The messages about each category of each argument, and the number of examples in them."""
        verbalizer, system = self.config.formulation.verbalizer, self.config.formulation.system
        said = (verbalizer.no[0], verbalizer.yes[0])
        for argument, categories, shown in zip(arguments, wanted, self.shown(arguments), strict=True):
            turns = [(self._question(one.argument, one.category), said[one.is_yes]) for one in shown]
            for category in np.flatnonzero(categories):
                yield conversation(self._question(argument, category), turns, system), len(turns)

    def _question(self, argument: Argument, category: int) -> str:
        return (self.template.context(argument) + "".join(self.template.question(category, argument))).strip()


@dataclass(frozen=True)
class Lists(RemoteFormulation):
    """`label_list`: one question about all categories of an argument, whose answer names those that apply."""

    template: ListTemplate

    @property
    def how(self) -> str:
        return f"one question about all categories; names in {self.config.formulation.generation.samples} answers"

    def rounds(self, arguments: Sequence[Argument], wanted: Wanted | None = None) -> Rounds:
        labels, form, tally = self.template.labels, self.config.formulation, Tally()
        asked = zip(arguments, self.shown(arguments), strict=True)
        results = yield [
            request
            for argument, shown in asked
            for request in self.asker.text_requests(self._messages(argument, shown), len(shown))
        ]
        reader = ListReader(labels, UNPARSED[form.generation.unparsed])
        logits, generated = np.full((len(arguments), len(labels)), np.nan), []
        for row, mine in enumerate(grouped(results, form.generation.samples)):
            votes = []
            for sample, result in enumerate(mine):
                if is_text(result, tally):
                    parsed = reader.parse(result.text, result.finish_reason)
                    tally.statuses[parsed.status] += 1
                    votes.append(reader.vote(parsed))
                    generated.append(as_text(row, sample, result, parsed.status))
            tally.questions += 1
            if votes:
                logits[row] = np.mean(votes, axis=0)
            else:
                tally.missing[why_missing(mine)] += 1
        return Asked(filled(logits), np.isnan(logits), tally, generated)

    def _messages(self, argument: Argument, shown: Sequence[Shown]) -> list[Message]:
        turns = [(self.template.question(one.argument), told(self.template.labels, one)) for one in shown]
        return conversation(self.template.question(argument), turns, self.config.formulation.system)


@dataclass(frozen=True)
class Chains(RemoteFormulation):
    """`chain_of_thought`: a first turn about an argument, then a second one about each category, behind the first."""

    template: ChainTemplate
    number_of_rounds = 2

    @property
    def how(self) -> str:
        turns = f"a first turn about each, then one for each of {len(self.template.labels)} categories"
        return f"{turns}, answered Yes or No; {self.asker.how}"

    def rounds(self, arguments: Sequence[Argument], wanted: Wanted | None = None) -> Rounds:
        wanted, samples = self.everything(arguments) if wanted is None else wanted, self._samples
        system, tally, generated = self.config.formulation.system, Tally(), []
        firsts = [conversation(self.template.first(argument), system=system) for argument in arguments]
        results = yield [request for messages in firsts for request in self.asker.text_requests(messages)]

        replies: list[list[str | None]] = [[] for _ in range(samples)]  # of each sample; None: without one
        for number, result in enumerate(results):
            row, sample = divmod(number, samples)
            reply = answer_of(result.text) if is_text(result, tally) else None
            replies[sample].append(reply)
            if reply is not None:
                status = "empty" if not reply else "truncated" if result.finish_reason == "length" else "answered"
                tally.statuses[status] += 1
                generated.append(as_text(row, sample, result, status))

        seconds, asked = [], []
        for each in replies:
            there = wanted & np.array([reply is not None for reply in each], bool)[:, None]
            asked.append(there)
            seconds += [r for one in self._seconds(arguments, each, there) for r in self.asker.requests(one)]
        results = yield seconds
        return self._together(results, wanted, asked, tally)._replace(generated=generated)

    def _seconds(
        self, arguments: Sequence[Argument], replies: Sequence[str | None], there: Wanted
    ) -> Iterator[list[Message]]:
        for argument, reply, categories in zip(arguments, replies, there, strict=True):
            for category in np.flatnonzero(categories):
                question = self.template.second(argument, category, reply)
                yield conversation(question, [(self.template.first(argument), reply)], self.config.formulation.system)

    def _together(self, results: Sequence[Result], wanted: Wanted, asked: Sequence[Wanted], tally: Tally) -> Asked:
        """The mean logits of all samples; a sample without a first or second turn is left out."""
        logits, start = [], 0
        for there in asked:
            count = int(there.sum()) * self.asker.each
            one = answered(self.asker, results[start : start + count], there, tally)
            logits.append(np.where(there & ~one.missing, one.logits, np.nan))
            start += count
        known = ~np.isnan(logits)
        total = np.where(known, logits, 0.0).sum(axis=0)
        mean = np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
        missing = np.isnan(mean) & wanted
        tally.missing.clear()
        if missing.any():
            tally.missing["no turn was answered"] += int(missing.sum())
        tally.questions = int(wanted.sum())
        return Asked(np.where(wanted, filled(mean), EXCLUDED), missing, tally)

    @property
    def _samples(self) -> int:
        return self.config.formulation.generation.samples


def make_remote(config: Config, template: AnyTemplate, found: Found, examples: Examples | None) -> RemoteFormulation:
    """The formulation of a config. Raises ConfigError for what the endpoint cannot do."""
    kind = {"answer": YesOrNo, "label_list": Lists, "chain_of_thought": Chains}[config.formulation.kind]
    return kind(Asker(config, found), template, examples)


def answered(asker: Asker, results: Sequence[Result], wanted: Wanted, tally: Tally | None = None) -> Asked:
    """The logits of the questions that were asked, from the results of all their requests."""
    tally, words = tally or Tally(), Words.of(asker.config.formulation.verbalizer)
    logits = np.full(wanted.shape, np.nan)
    for at, mine in zip(np.flatnonzero(wanted), grouped(results, asker.each), strict=True):
        logits.flat[at] = asker.logit(mine, words, tally)
    tally.questions += int(wanted.sum())
    return Asked(np.where(wanted, filled(logits), EXCLUDED), np.isnan(logits) & wanted, tally)


def is_text(result: Result, tally: Tally) -> bool:
    """Whether a result is a text of the model; what a filter removed is none."""
    if isinstance(result, str):
        tally.unanswered += 1
        return False
    tally.answer(result)
    return result.finish_reason != "content_filter"


def why_missing(results: Sequence[Result]) -> str:
    """In a word, why none of the results is a text."""
    return next((one for one in results if isinstance(one, str)), "filtered")


def as_text(row: int, sample: int, answer: Answer, status: str) -> dict[str, object]:
    """A text as `generated-<split>.jsonl` keeps it."""
    reason = answer.finish_reason
    return {"argument": row, "sample": sample, "text": answer.text, "finish_reason": reason, "status": status}


def first_request(formulation: RemoteFormulation, arguments: Sequence[Argument]) -> Request:
    """The first request about some arguments."""
    return next(formulation.rounds(arguments[:1]))[0]
