"""The sha256 of a checkpoint's files, beside its series: `checkpoints/chosen` has `checkpoints/chosen.json`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from jaxvalues.config.reading import entry, read_json
from jaxvalues.config.writing import write_json
from jaxvalues.errors import UserError


def record_checkpoint(series: Path, step: int) -> None:
    """Write the sums of the checkpoint of `step`, unless they are there."""
    path = _beside(series)
    if not os.path.lexists(path) or read_json(path, "the checksums of a checkpoint").get("step") != step:
        write_json(path, {"step": step, "sha256": _sums(series / str(step))})


def forget_checkpoint(series: Path, step: int) -> None:
    """Remove the sums of a checkpoint of the same step that was there before, as one is about to be written."""
    path = _beside(series)
    if os.path.lexists(path) and read_json(path, "the checksums of a checkpoint").get("step") == step:
        path.unlink()


def check_checkpoint(series: Path, step: int) -> None:
    """Raise UserError, which names the file, where one of the checkpoint of `step` is not as it was written.

    A checkpoint without sums, as a run that was killed leaves it, is not checked.
    """
    path = _beside(series)
    if not os.path.lexists(path):
        return
    content = read_json(path, "the checksums of a checkpoint")
    if entry(content, "step", int, path) != step:
        return
    expected, found = entry(content, "sha256", dict, path), _sums(series / str(step))
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            problem = "is absent" if name not in found else "differs from what the run wrote"
            raise UserError(f"{series / str(step) / name}: {problem} (see {path.name}): put the file back")


def _beside(series: Path) -> Path:
    return series.with_name(f"{series.name}.json")


def _sums(folder: Path) -> dict[str, str]:
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                sums[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
