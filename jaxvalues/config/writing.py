"""Writing files so that they are whole or not there, and folders that can be written to, found out before the work."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jaxvalues.config.reading import os_problem
from jaxvalues.errors import UserError


@contextmanager
def writing(path: str | Path, then: str = "") -> Iterator[None]:
    """A block that writes `path`: an OSError in it, such as that of a full disk, becomes a UserError.

    `then` says what to do once there is space.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({os_problem(error)}){then}") from None


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file so that at every moment it is either the old one or the whole new one. Raises UserError."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # a rename is atomic only within one folder
    with writing(path):
        try:
            with partial.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def json_text(content: Any) -> str:
    """The text of a JSON file."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that the file is either whole or not there. Raises UserError."""
    write_whole(path, json_text(content))


def check_writable(path: str | Path, what: str) -> None:
    """Raise UserError unless files can be written in the folder `path`, which may not exist yet; `what` names it.

    Nothing is left behind.
    """
    folder = Path(path)
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(folder)
        while not os.path.lexists(folder) and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            raise UserError(f"{what} {path}: {folder} is no folder")
        probe = folder / f".jaxvalues.{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{what} {path}: nothing can be written there ({os_problem(error)})") from None
