"""One request to an endpoint, by the `openai` client, and what its failure means.

The client's own retries are off: `jaxvalues.remote.session` has the only loop.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from jaxvalues.errors import UserError, cut, one_sentence
from jaxvalues.remote.key import KEY, api_key, masked, without_key
from jaxvalues.remote.messages import Malformed, parse_body

FORBIDDEN = 403
URL_HINT = "most endpoints end in /v1"
PAGE = "web page"
"""The kind of failure where HTML comes in the place of an answer: from a proxy, or from a URL that is no endpoint."""
TOO_LONG = "too long"
"""The kind of failure of a request that does not fit into the context of the model."""
_AGAIN = (408, 409, 425, 429)
"""Statuses below 500 after which the same request may be answered."""
_REFUSED = (400, 413, 422)
"""Statuses of a request that is too long, where the response says so."""
_SAYS_TOO_LONG = re.compile(
    r"context.{0,12}(length|size|window)|maximum (model length|number of tokens)|max_new_tokens` must be"
    r"|prompt is too long|request too large|reduce the length",
    re.IGNORECASE,
)
"""How OpenAI, vLLM, SGLang, llama.cpp, TGI, Anthropic, Gemini and others say so: in an error's code or message."""


@dataclass
class Failed(Exception):
    """An attempt that brought no answer."""

    kind: str
    """In a word or two, for counts: "429", "timeout", "malformed"."""
    said: str
    """What happened, for a message."""
    retry: bool = True
    """Whether another attempt may bring one."""
    throttled: bool = False
    """Whether the endpoint asks for fewer requests."""
    after: float | None = None
    """Seconds that the endpoint asks to wait."""


def check_installed() -> Any:
    """The package `openai`. Raises UserError where it is not installed."""
    try:
        import openai
    except ImportError:
        raise UserError(
            "model.endpoint needs the package openai, which is not installed: pip install 'jaxvalues[remote]'"
        ) from None
    return openai


class Client:
    """A connection to an endpoint, an asynchronous context manager. Raises UserError without the package `openai`."""

    def __init__(self, endpoint: str, timeout: float) -> None:
        openai = check_installed()
        self.endpoint, self.timeout, self._openai = endpoint, timeout, openai
        self._secret = api_key()
        self._client = openai.AsyncOpenAI(
            api_key=self._secret or "none", base_url=endpoint, max_retries=0, timeout=timeout
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._client.close()

    async def send(self, payload: Mapping[str, Any]) -> Any:
        """The response to one request, as parsed JSON.

        Raises Failed for an attempt without one, UserError where no other request can do better: a wrong key, a model
        that is not there, an account without money. A 403 may be about one request, whose words a filter refuses.
        """
        openai = self._openai
        try:
            async with asyncio.timeout(self.timeout):  # the client's own begins anew with every piece of a response
                rest = {name: value for name, value in payload.items() if name not in ("model", "messages")}
                raw = await self._client.chat.completions.with_raw_response.create(
                    model=payload["model"], messages=payload["messages"], extra_body=rest
                )
                text = raw.http_response.text
            return self._read(text, payload)
        except Malformed as error:
            raise Failed("malformed", f"the response is {error}") from None
        except (TimeoutError, openai.APITimeoutError):
            raise Failed("timeout", f"no answer within {self.timeout:g} s") from None
        except openai.APIStatusError as error:
            raise self._status(error, str(payload["model"])) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            said = cut(self._clean(str(cause)) or type(cause).__name__, 80)
            raise Failed("connection", f"no connection ({said})") from None
        except openai.OpenAIError as error:
            raise Failed("malformed", self._clean(str(error))) from None

    def _read(self, text: str, payload: Mapping[str, Any]) -> Any:
        """The JSON of a response, without the key. Raises Malformed, Failed for an error or a page as the answer."""
        if _is_page(text):
            raise Failed(PAGE, "the response is a web page")
        body = without_key(parse_body(text), self._secret, f"{self.endpoint} {json.dumps(payload)}")
        if isinstance(body, Mapping) and not body.get("choices") and (said := _said(body)):
            raise Failed("malformed", f"the response is no chat completion: {self._clean(said)}")
        return body

    def _status(self, error: Any, model: str) -> Exception:
        """What a status means that is not OK."""
        status, said = error.status_code, self._clean(_message(error))
        has_no_money = status == 429 and "insufficient_quota" in f"{error.code} {error.type}"
        fatal = {  # what the endpoint says is not repeated where it could hold a part of the key
            401: f"{self.endpoint} refuses the key in the environment variable {KEY} (401)",
            402: f"{self.endpoint} wants to be paid first (402): {said}",
            404: f"{self.endpoint} has no chat completions of a model {model} (404): {said}{self._hint}",
        }
        if status == 401 and self._secret is None:
            return UserError(f"{self.endpoint} asks for a key (401): set the environment variable {KEY}")
        if has_no_money or status in fatal:
            return UserError(fatal.get(status, f"the account at {self.endpoint} has no money left (429)"))
        retry = status >= 500 or status in _AGAIN
        after = _retry_after(error.response) if retry else None
        is_too_long = says_too_long(status, error.body)
        said = (
            f"{self.endpoint} refuses the request (403): {said}" if status == FORBIDDEN else f"status {status}: {said}"
        )
        return Failed(TOO_LONG if is_too_long else str(status), said, retry, throttled=status == 429, after=after)

    @property
    def _hint(self) -> str:
        """What to add where nothing is found at a URL without a path."""
        return "" if urlsplit(self.endpoint).path.strip("/") else f"; {URL_HINT}"

    def _clean(self, text: str) -> str:
        """A short text of the endpoint on one line, without the key."""
        return one_sentence(masked(text, self._secret), 120)


def _is_page(text: str) -> bool:
    return text.lstrip()[:9].lower().startswith(("<!doctype", "<html"))


def says_too_long(status: Any, body: Any) -> bool:
    """Whether a response, parsed, says that its request does not fit into the context of the model."""
    if status not in _REFUSED:
        return False
    error = body.get("error", body) if isinstance(body, Mapping) else body
    said = [error.get(name) for name in ("code", "type", "message")] if isinstance(error, Mapping) else [error]
    return any(isinstance(one, str) and _SAYS_TOO_LONG.search(one) for one in said)


def _message(error: Any) -> str:
    """What a response of an error says."""
    said = _said(error.body) if isinstance(error.body, Mapping) else ""
    text = str(error.response.text)
    return said or ("a web page" if _is_page(text) else text or "no reason given")


def _said(body: Mapping[str, Any]) -> str:
    """The message of an error in a response; empty without one."""
    inner = body.get("error") if isinstance(body.get("error"), Mapping) else body
    return str(inner.get("message") or body.get("detail") or body.get("error") or "")


def _retry_after(response: Any) -> float | None:
    """The seconds that a response asks to wait; None where it does not say."""
    headers = response.headers
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    said = headers.get("retry-after")
    if said is None or (seconds := _number(said)) is not None:
        return None if said is None else seconds
    try:
        until = parsedate_to_datetime(said)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
