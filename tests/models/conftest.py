"""Products in full float32 precision, so that comparisons measure the code and not the device; quick compiling."""

from __future__ import annotations

import jax
import pytest


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(autouse=True, scope="module")
def _quickly(quick_compiles: None) -> None: ...
