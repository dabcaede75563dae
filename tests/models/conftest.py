"""Float32 products in full precision, so that comparisons say something about the code and not about the device."""

from __future__ import annotations

import jax
import pytest


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield
