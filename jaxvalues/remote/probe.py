"""What an endpoint can do: found out once by a few requests, and written down."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from jaxvalues.errors import UserError, cut
from jaxvalues.remote.client import FORBIDDEN, PAGE, URL_HINT, Failed
from jaxvalues.remote.messages import Answer, Request
from jaxvalues.remote.sender import Sender, Stopped, Unanswered
from jaxvalues.remote.store import Contents

MOST_TOP = 20
"""The most log-probabilities that the OpenAI format returns for a token."""
_QUESTION = [{"role": "user", "content": "Is water wet? Answer with Yes or No."}]
_DATED = r"[-@:]\d{4}"  # gpt-4o-2024-08-06, gpt-4-0613


@dataclass(frozen=True)
class Found:
    """What an endpoint takes and returns."""

    tokens_key: str = "max_tokens"
    """The parameter for the longest answer: `max_tokens` or `max_completion_tokens`."""
    top_logprobs: int = MOST_TOP
    """The number of log-probabilities that are returned for a token; 0 without any."""
    seed: bool = True
    temperature: bool = True
    """Whether it takes the parameters of these names."""
    echo: str | None = None
    """The name of the model that answered, as it calls itself."""

    def payload(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int,
        *,
        logprobs: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> dict[str, Any]:
        """The body of a request, with the parameters that the endpoint takes."""
        body: dict[str, Any] = {"model": model, "messages": list(messages), self.tokens_key: max_tokens}
        if logprobs and self.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        if self.temperature:
            body["temperature"] = temperature
        if top_p != 1.0:
            body["top_p"] = top_p
        if self.seed and seed is not None:
            body["seed"] = seed
        return body

    def to_json(self) -> dict[str, Any]:
        """A plain dict; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Found:
        """Raises ValueError for what `to_json` of this version did not write."""
        if content.keys() != _TYPES.keys() or not all(isinstance(content[key], _TYPES[key]) for key in _TYPES):
            raise ValueError
        return cls(**content)

    def without(self, said: str) -> Found | None:
        """What to try after a refusal, from the parameter that it names, else from the one most often refused.

        None: nothing is left to leave out.
        """
        said = said.lower()
        named = [name for name in _WEAKER if _NAMES[name] in said]
        for name in (*named, *_WEAKER):
            if (weaker := _WEAKER[name](self)) is not None:
                return weaker
        return None


_TYPES = {"tokens_key": str, "top_logprobs": int, "seed": bool, "temperature": bool, "echo": str | None}
_NAMES = {"tokens_key": "max_tokens", "top_logprobs": "logprobs", "temperature": "temperature", "seed": "seed"}
_WEAKER = {
    "tokens_key": lambda f: replace(f, tokens_key="max_completion_tokens") if f.tokens_key == "max_tokens" else None,
    "top_logprobs": lambda f: replace(f, top_logprobs=5 if f.top_logprobs > 5 else 0) if f.top_logprobs else None,
    "temperature": lambda f: replace(f, temperature=False) if f.temperature else None,
    "seed": lambda f: replace(f, seed=False) if f.seed else None,
}


async def probe(sender: Sender, model: str, parameters: Mapping[str, Any]) -> Found:
    """Find out what the endpoint of a sender can do with a model, with further `parameters` of every request.

    Raises UserError for an endpoint that does not answer, or answers as another model.
    """
    found: Found | None = Found()
    endpoint, refused = sender.client.endpoint, ""
    sender = Sender(sender.client, sender.gate, sender.budget, sender.attempts, hopeless=(PAGE,))
    while found is not None:
        request = Request(endpoint, found.payload(model, _QUESTION, 16, logprobs=True, seed=0) | dict(parameters))
        try:
            reply = await sender.send(request, lambda answer: None)
        except Unanswered as error:
            refused = error.failed.said
            if error.failed.kind == str(FORBIDDEN):
                raise UserError(refused) from None
            if error.failed.kind == PAGE:
                raise UserError(f"{endpoint} answers with a web page, so it is no endpoint: {URL_HINT}") from None
            if error.failed.retry:
                raise UserError(f"{endpoint} does not answer: {refused}") from None
            found = found.without(refused)
            continue
        except Stopped as stopped:
            raise stopped.error or UserError(f"{endpoint} was not asked") from None
        check_model(model, reply.answer.echo, endpoint)
        top = found.top_logprobs if reply.answer.first is not None else 0
        return replace(found, top_logprobs=top, echo=reply.answer.echo)
    raise UserError(f"{endpoint} refuses even the plainest request: {refused}")


async def is_alive(sender: Sender, model: str, parameters: Mapping[str, Any], found: Found) -> bool:
    """Whether the endpoint answers the question of the probe as it did, asked once.

    Raises UserError where it may not be asked, such as for a budget that is used up.
    """
    once = Sender(sender.client, sender.gate, sender.budget, 1)
    payload = found.payload(model, _QUESTION, 16, logprobs=True, seed=0) | dict(parameters)
    request = Request(sender.client.endpoint, payload)
    try:
        await once.send(request, partial(check_answer, found, request))
    except Unanswered:
        return False
    except Stopped as stopped:  # without an error, something else has ended everything
        if stopped.error is not None:
            raise stopped.error from None
    return True


def recall(contents: Contents, endpoint: str, model: str) -> Found | None:
    """What a store knows of an endpoint; None for nothing, and for facts that this version cannot read."""
    try:
        return Found.from_json(contents.endpoints[endpoint, model])
    except (KeyError, ValueError):
        return None


def check_model(model: str, echo: str | None, endpoint: str) -> None:
    """Raise UserError unless an answer is of the model that was asked: by its name, its last part, or a dated name."""
    if echo is None or echo == model or re.fullmatch(f"{re.escape(model)}{_DATED}.*", echo):
        return
    if echo.rsplit("/", 1)[-1] != model.rsplit("/", 1)[-1]:
        raise UserError(
            f"{endpoint} answers as {cut(echo, 60)} where {cut(model, 60)} was asked for: set model.id to the "
            "model that is meant"
        )


def check_answer(found: Found, request: Request, answer: Answer) -> None:
    """Raise Failed for an answer of another model than the first one, or without log-probabilities that are
    wanted."""
    if answer.echo != found.echo:
        raise Failed("other model", f"{answer.echo} answered in the place of {found.echo}")
    if not request.payload.get("logprobs") or answer.first is not None or answer.finish_reason == "content_filter":
        return
    if answer.is_blank:
        said = f"model.remote.max_tokens {request.most_tokens} is too small: the answer is blank so far"
        raise Failed("model.remote.max_tokens is too small", said, retry=False)
    raise Failed("no log-probabilities", "the answer has no log-probabilities")
