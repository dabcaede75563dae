"""Compiling is most of the time of all these tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def _quickly(quick_compiles: None) -> None: ...
