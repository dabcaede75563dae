"""Writing a folder atomically: it appears complete, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxvalues.config import check_no_url
from jaxvalues.config.writing import writing
from jaxvalues.errors import ConfigError, UserError


def check_new_folder(target: Path) -> None:
    """Raise ConfigError unless `target` does not exist or is an empty folder."""
    check_no_url("the folder to write", target)
    if target.is_dir() and any(target.iterdir()):
        raise ConfigError(f"the folder {target} is not empty: give another folder")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file: give a folder")


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder, which is renamed to `target` at the end of the block, or removed if the block fails.

    It lies beside `target`, as a rename is atomic only within a file system. Raises ConfigError if `target` exists and
    is not an empty folder, and UserError if it cannot be created.
    """
    check_new_folder(target)
    target = Path(os.path.realpath(target))
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"the folder {target} cannot be created ({error.strerror})") from None
    try:
        with writing(target):
            yield partial
            os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
