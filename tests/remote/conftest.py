"""What tests of endpoints share: no key or proxy of the environment."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_key(without_key: None) -> None:
    """For tests that use no `server`, too."""
