"""The key of an endpoint: where it comes from, and how it stays out of messages and files."""

from __future__ import annotations

import json
import os
from typing import Any

from jaxvalues.errors import UserError

KEY = "OPENAI_API_KEY"
"""The environment variable with the key of the endpoint."""
SHORTEST = 8
"""The length from which on a key is masked in files. Shorter ones are stand-ins for a key: `none`, `test`, `ollama`."""
_MASK = "***"


def api_key() -> str | None:
    """The key of the endpoint; None without one, as servers of one's own ask for none.

    Raises UserError, which does not show it, for what cannot be sent as a key.
    """
    key = os.environ.get(KEY, "").strip()
    if not all("!" <= one <= "~" for one in key):
        raise UserError(
            f"the environment variable {KEY} is no key: it holds a blank, a line break or another character that is "
            "not printable ASCII"
        )
    return key or None


def check_no_key(endpoint: str, parameters: dict[str, Any]) -> None:
    """Raise UserError where the key of the environment is in the endpoint or the parameters of a config: these are
    written to files and sent as they are. Short stand-ins for a key are ordinary words."""
    key = api_key()
    if key is None or len(key) < SHORTEST:
        return
    for name, text in (("model.endpoint", endpoint), ("model.remote.parameters", json.dumps(parameters))):
        if key in text:
            raise UserError(f"{name} holds the key in {KEY}: take it out, as the environment alone may hold it")


def without_key(value: Any, key: str | None, sent: str) -> Any:
    """JSON content from an endpoint, with stars in its texts in the place of the key.

    What was `sent` may hold the key too where it is only a stand-in for one, such as the name of a model; then nothing
    is masked, for it is an ordinary word.
    """
    if key is None or len(key) < SHORTEST or key in sent:
        return value
    return _masked(value, key)


def _masked(value: Any, key: str) -> Any:
    match value:
        case str():
            return value.replace(key, _MASK)
        case list():
            return [_masked(one, key) for one in value]
        case dict():
            return {name: _masked(one, key) for name, one in value.items()}
    return value


def masked(text: str, key: str | None) -> str:
    """A text for a message, with stars in the place of a key of any length."""
    return text.replace(key, _MASK) if key else text
