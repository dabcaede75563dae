"""A folder that is there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxvalues.errors import ConfigError, UserError


def check_new(target: Path) -> None:
    """Raise ConfigError unless `target` is absent or an empty folder."""
    if target.is_dir() and any(target.iterdir()):
        raise ConfigError(f"the folder {target} is not empty: give another")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file: give a folder")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` at the end of the block, or is removed when the block fails.

    It lies beside `target`: only there is a rename atomic. Raises ConfigError as `check_new` does.
    """
    check_new(target)
    target = target.resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"the folder {target} cannot be made ({error.strerror})") from None
    try:
        yield partial
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
