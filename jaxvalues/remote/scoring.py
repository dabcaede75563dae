"""From what an endpoint answers to logits: by the log-probabilities of the first token, or by votes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxvalues.config import VerbalizerConfig
from jaxvalues.templates.chat import answer_of

_AROUND = " \t\r\n\"'`*_.,:;!?()[]{}#>-–—▁Ġ“”‘’"
"""What may stand around a word in a token or an answer; ▁ and Ġ are spaces of tokenizers."""


@dataclass(frozen=True)
class Words:
    """The words that say Yes and No, without regard to case."""

    yes: frozenset[str]
    no: frozenset[str]

    @classmethod
    def of(cls, verbalizer: VerbalizerConfig) -> Words:
        """The words of a config."""
        return cls(*(frozenset(plain(word) for word in words) for words in (verbalizer.yes, verbalizer.no)))

    def vote(self, text: str, is_cut: bool = False) -> bool | None:
        """Whether an answer says Yes or No: by the word that it begins with, else by the only one of them that it
        holds; None where neither tells.

        Thoughts are no part of it. In one that `is_cut` off, only the word that it begins with tells.
        """
        text = answer_of(text)
        for tells in (_begins,) if is_cut else (_begins, _holds):
            says_yes, says_no = (any(tells(text, word) for word in words) for words in (self.yes, self.no))
            if says_yes != says_no:
                return says_yes
        return None


def plain(text: str) -> str:
    """A word without what stands around it, in lower case."""
    return text.strip(_AROUND).casefold()


def _begins(text: str, word: str) -> bool:
    return re.match(rf"{re.escape(word)}(?!\w)", text.lstrip(_AROUND).casefold()) is not None


def _holds(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text.casefold()) is not None


class Odds(NamedTuple):
    """The logit of a question from the log-probabilities of the first token."""

    logit: float
    mass: float
    """The probability of the words of both sides together, as far as it is returned."""
    bounded: str | None
    """`yes` or `no`: the side of which no word was returned, so that a bound stands in its place."""
    words: Mapping[str, float]
    """{token: probability} of the words that were found."""


def log_odds(first: Mapping[str, float], words: Words, bound: float | None = None) -> Odds | None:
    """log p(Yes) − log p(No), each summed over the tokens that are one of its words.

    A side without such a token has the most that a token can have that is absent: `bound`, else the smallest
    log-probability in `first`. None where both sides are absent: nothing is known then.
    """
    sides = [[token for token in first if plain(token) in side] for side in (words.yes, words.no)]
    if not any(sides):
        return None
    bound = min(first.values()) if bound is None else bound
    yes, no = (_log_sum(first[token] for token in side) if side else bound for side in sides)
    found = {token: math.exp(first[token]) for side in sides for token in side}
    absent = next((name for name, side in zip(("yes", "no"), sides, strict=True) if not side), None)
    return Odds(yes - no, min(1.0, sum(found.values())), absent, found)


def vote_logit(votes: Sequence[bool]) -> float:
    """The log-odds of votes: log (yes + ½) − log (no + ½). Half a vote on each side keeps it finite."""
    yes = sum(votes)
    return math.log(yes + 0.5) - math.log(len(votes) - yes + 0.5)


def _log_sum(values: Iterable[float]) -> float:
    values = list(values)
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values))
