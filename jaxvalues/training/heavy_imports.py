"""Imports of other packages that must not bring in more than is used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(package: str) -> Iterator[None]:
    """A block in which importing `package` fails as if it were not installed, unless it has been imported before."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # Python's own way to make an import fail
    try:
        yield
    finally:
        del sys.modules[package]
