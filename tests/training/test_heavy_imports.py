"""Imports that would bring in more than is used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from jaxvalues.training.heavy_imports import without


def test_a_package_is_hidden_within_the_block_alone() -> None:
    sys.modules.pop("wave", None)
    with without("wave"), pytest.raises(ImportError):
        importlib.import_module("wave")
    assert importlib.import_module("wave").__name__ == "wave"
    with without("wave"):  # imported before: hiding it now would hide it from its users
        assert importlib.import_module("wave").__name__ == "wave"


def test_curves_are_written_without_torch() -> None:
    program = "import sys, jaxvalues.training.event_file; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
