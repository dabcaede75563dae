"""The section `model.remote`: how a language model that is served elsewhere is asked."""

from __future__ import annotations

import json
import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from jaxvalues.config.section import Section

_OWN = {"model", "messages", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "temperature", "top_p"}
_OWN |= {"seed", "stream", "n"}
"""Parameters of requests that jaxvalues sets."""


class RemoteConfig(Section):
    """endpoint: how the model that is served there is asked. The key comes from the environment variable
    OPENAI_API_KEY, and from nowhere else."""

    scoring: Literal["logprobs", "votes"] = "logprobs"
    """Where the logit of a question comes from. `logprobs`: the log-probabilities of the first token, summed over those
    that say Yes and those that say No. `votes`: the log-odds of (yes + ½) to (no + ½) in `samples` answers, for
    endpoints that return no log-probabilities."""
    samples: int = Field(5, ge=1, le=999)
    """votes: number of answers to each question."""
    temperature: float = Field(1.0, ge=0, le=2)
    """votes: sampling temperature. Log-probabilities are always those at temperature 1."""
    max_tokens: int | None = Field(None, ge=1)
    """Longest answer in tokens. null: 1 for `logprobs`, 16 for `votes`. A model that begins its answers with blank
    tokens needs more."""
    parameters: dict[str, Any] = {}  # noqa: RUF012  (pydantic copies it)
    """Further parameters of every request, as the endpoint knows them, such as {chat_template_kwargs: {enable_thinking:
    false}}, with which vLLM lets a thinking model answer at once. They are no place for keys."""
    concurrency: int = Field(32, ge=1)
    """Most requests at once. It starts at 4, grows while answers come, and is cut by a fifth where the endpoint answers
    429 (too many requests)."""
    timeout: float = Field(60.0, gt=0)
    """Seconds after which a request without a whole answer counts as failed."""
    attempts: int = Field(8, ge=1)
    """Attempts at each request, with random waits between them that grow up to a minute. `Retry-After` is obeyed."""
    min_coverage: float = Field(0.99, gt=0, le=1)
    """Smallest share of answered questions with which a run finishes. Below it the run stays unfinished, and the same
    command sends the others again. Questions without an answer are left out of the scores, which say so."""
    input_price: float | None = Field(None, ge=0)
    """Price of a million tokens of prompts, for `max_cost` and for estimates."""
    output_price: float | None = Field(None, ge=0)
    """Price of a million tokens of answers."""

    @field_validator("parameters")
    @classmethod
    def _as_json(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        """As they are sent and stored, so that a key of a mapping is a text."""
        try:
            return json.loads(json.dumps(parameters, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            raise ValueError("must hold texts, numbers, lists and mappings alone") from None

    @model_validator(mode="after")
    def _keys_belong_together(self) -> RemoteConfig:
        if taken := _OWN & self.parameters.keys():
            raise ValueError(f"`parameters` cannot set {min(taken)}, which follows from other keys")
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("give both `input_price` and `output_price`, or neither")
        if self.scoring == "logprobs" and (self.samples, self.temperature) != (5, 1.0):
            raise ValueError("`samples` and `temperature` belong to scoring: votes, not to logprobs")
        return self

    @property
    def answer_tokens(self) -> int:
        """The longest answer in tokens."""
        return self.max_tokens or (1 if self.scoring == "logprobs" else 16)


LAYOUT = ("concurrency", "timeout", "attempts", "min_coverage", "input_price", "output_price")
"""The keys that change no answer."""


def endpoint_problem(url: str) -> str | None:
    """What makes a URL unfit for an endpoint, in words; None for a fit one.

    A user, a password or a query could be secrets, which belong into no config.
    """
    try:
        parts = urlsplit(url)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_one or re.search(r"\s", url):
        return "is not a URL such as http://localhost:8000/v1"
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        return "holds more than host, port and path: the key belongs into the environment variable OPENAI_API_KEY"
    return None
