"""Requests to an endpoint, and what is read from its responses."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

ABSENT = -9999.0
"""What OpenAI returns for the log-probability of a token that is not among those it looks at."""

_LEAST = 1e-6
"""The smallest probability of tokens that are absent, where the one that was drawn is returned alone."""


class Malformed(Exception):
    """A response that is none of the format; the message says in a few words why."""


@dataclass(frozen=True)
class Request:
    """One request: all that is sent, and the number of the sample where the same is asked several times."""

    endpoint: str
    payload: Mapping[str, Any]
    """The body of the request: model, messages and every parameter."""
    sample: int = 0
    shorter: Callable[[], Request] | None = field(default=None, compare=False, repr=False)
    """The same question with one example fewer, for an endpoint that refuses this one as too long; None: without
    examples."""

    @cached_property
    def key(self) -> str:
        """The name of the request: a hash of the canonical JSON of everything sent. 64 hexadecimal digits."""
        return request_key(self.endpoint, self.payload, self.sample)

    @property
    def most_tokens(self) -> int:
        """The longest answer in tokens."""
        return self.payload.get("max_tokens") or self.payload["max_completion_tokens"]

    @property
    def characters(self) -> int:
        """The length of its messages in characters."""
        return sum(len(message["content"]) for message in self.payload["messages"])


def request_key(endpoint: str, payload: Mapping[str, Any], sample: int) -> str:
    """See `Request.key`."""
    sent = {"endpoint": endpoint, "request": payload, "sample": sample}
    text = json.dumps(sent, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What a response says."""

    text: str
    finish_reason: str
    """`stop`, `length` (cut off at the longest length), `content_filter`, or another word of the endpoint."""
    first: Mapping[str, float] | None
    """{token: log-probability} of the first token that is not blank, as far as they are returned; None without any."""
    echo: str | None
    """The name of the model that answered, as it calls itself."""
    prompt_tokens: int | None
    completion_tokens: int | None
    bound: float | None = None
    """The most that the log-probability of a token can be that is not in `first`."""
    is_blank: bool = False
    """Whether all of it are blank tokens, as far as log-probabilities are returned."""


Result = Answer | str
"""An answer, or in a word why there is none."""


def read_answer(response: Any) -> Answer:
    """What a response (JSON, parsed) says. Raises Malformed for what is not a chat completion."""
    try:
        choice = response["choices"][0]
        content = choice["message"].get("content")
        reason = choice.get("finish_reason")
        log_probs = (choice.get("logprobs") or {}).get("content") or []
        position = next((one for one in log_probs if one["token"].strip()), None)
        first, bound = (None, None) if position is None else _read_position(position)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise Malformed("no chat completion") from None
    if not isinstance(content, str | None) or not isinstance(reason, str | None):
        raise Malformed("no chat completion")
    usage = response.get("usage")
    tokens = [_count(usage, key) for key in ("prompt_tokens", "completion_tokens")]
    echo = response.get("model")
    echo = echo if isinstance(echo, str) else None
    is_blank = bool(log_probs) and position is None
    return Answer(content or "", reason or "none given", first, echo, *tokens, bound, is_blank)


def parse_body(body: str) -> Any:
    """The JSON of a response. Raises Malformed, also for one that is cut off."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("no JSON" if body.strip() else "an empty response") from None


def _read_position(position: Mapping[str, Any]) -> tuple[dict[str, float] | None, float | None]:
    """`first` and `bound` of an answer, from its first position whose token is not blank.

    Several tokens may have the same text, which has their probabilities together. The token that was drawn is one of
    the most likely ones, or less likely than these, so that it says nothing about tokens that are absent. An entry
    without a text is left out.
    """
    found: dict[str, float] = {}
    drawn = _log_probability(position)
    top = [(one["token"], _log_probability(one)) for one in position.get("top_logprobs") or ()]
    top = [(token, value) for token, value in top if isinstance(token, str) and value > ABSENT]
    for token, value in top:
        found[token] = float(np.logaddexp(found[token], value)) if token in found else value
    if position["token"] not in found and drawn > ABSENT:
        found[position["token"]] = drawn
    if not found:
        return None, None
    left = max(0.0, 1.0 - sum(math.exp(value) for value in found.values()))
    return found, min(value for _, value in top) if top else math.log(max(left, _LEAST))


def _log_probability(entry: Mapping[str, Any]) -> float:
    value = float(entry["logprob"])
    if math.isnan(value) or value > 1e-3:
        raise ValueError
    return value


def _count(usage: Any, key: str) -> int | None:
    value = usage.get(key) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and value >= 0 else None
