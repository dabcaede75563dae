"""The tests of single layers look at what XLA makes of them, so they compile as a run does."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def _quickly() -> None:
    """Replaces the one of all tests of models."""
