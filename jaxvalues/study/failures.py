"""What stands beside the folder of a run of a study that failed."""

from __future__ import annotations

from pathlib import Path

from jaxvalues.config.writing import write_whole
from jaxvalues.errors import NotFiniteError, UserError, first_line

FAILED, DIVERGED = "failed.txt", "diverged.txt"
"""After the name of a run's folder: why it failed, and why it need not be tried again, as its loss is not finite."""


def failure_file(folder: Path) -> Path:
    """Where it stands why the run of a folder failed."""
    diverged = folder.with_name(f"{folder.name}.{DIVERGED}")
    return diverged if diverged.is_file() else folder.with_name(f"{folder.name}.{FAILED}")


def has_diverged(folder: Path) -> bool:
    """Whether the run of a folder ended with a loss that is not finite: it would again."""
    return folder.with_name(f"{folder.name}.{DIVERGED}").is_file()


def write_failure(folder: Path, error: Exception, details: str) -> Path:
    """Write why a run failed. Returns the file."""
    kind = DIVERGED if isinstance(error, NotFiniteError) else FAILED
    remove_failure(folder)
    file = folder.with_name(f"{folder.name}.{kind}")
    write_whole(file, f"{sentence_of(error)}\n\n{details}")
    return file


def remove_failure(folder: Path) -> None:
    """Remove what an earlier attempt left."""
    for kind in (FAILED, DIVERGED):
        folder.with_name(f"{folder.name}.{kind}").unlink(missing_ok=True)


def sentence_of(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}"
