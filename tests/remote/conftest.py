"""What tests of endpoints share: the stand-in server, and no key or proxy of the environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stand_in import StandIn


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[StandIn]:
    """A stand-in that answers at once; tests set its `behave`."""
    with StandIn() as one:
        yield one
