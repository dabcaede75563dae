"""manifest.json of a finished run: the sha256 of the files that it needs later, so that a changed byte is named.

The checkpoint of the run has sums of its own (`jaxvalues.training.checksums`), and the manifest holds that of their
file. Runs from before there was a manifest have none, and are not checked.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path

from jaxvalues.config.reading import entry, read_file, read_json
from jaxvalues.config.writing import write_json
from jaxvalues.errors import UserError, short

MANIFEST = "manifest.json"
_TABLES = ("predictions-*.tsv", "probabilities-*.tsv", "logits-*.tsv")
_NEEDED = ("config.yaml", "environment.json", "ensemble.json", "thresholds.json", "template.txt", "synonyms.tsv")
_NEEDED += ("examples.json", "detector.json", "adapter.safetensors", "model/*", "tokenizer/*")
_NEEDED += ("checkpoints/chosen.json", *_TABLES)


def write_manifest(folder: Path, last: Mapping[str, str]) -> None:
    """Write the manifest of a run folder; `last` is {name: text} of what is written after it."""
    found = sorted({path for pattern in _NEEDED for path in folder.glob(pattern) if path.is_file()})
    sums = {path.relative_to(folder).as_posix(): _sum(path.read_bytes()) for path in found}
    sums |= {name: _sum(text.encode()) for name, text in last.items()}
    write_json(folder / MANIFEST, {"sha256": sums})


def take_from_manifest(folder: Path, names: Iterable[str]) -> list[str]:
    """Take files out of the manifest, before they are written anew; returns those that were there."""
    if not os.path.lexists(folder / MANIFEST):
        return []
    sums = _read(folder)
    if taken := [name for name in names if sums.pop(name, None)]:
        write_json(folder / MANIFEST, {"sha256": sums})
    return taken


def add_to_manifest(folder: Path, names: Iterable[str]) -> None:
    """Put files that `take_from_manifest` took out into the manifest again, as they are now."""
    if added := {name: _sum((folder / name).read_bytes()) for name in names}:
        write_json(folder / MANIFEST, {"sha256": _read(folder) | added})


def check_manifest(folder: Path, tables: bool = True) -> None:
    """Raise UserError, which names the file, where one is not as the run wrote it; `tables` are its predictions."""
    if not os.path.lexists(folder / MANIFEST):
        return
    for name, expected in _read(folder).items():
        is_table = any(fnmatch(name, pattern) for pattern in _TABLES)
        if is_table and not (tables and (folder / name).is_file()):
            continue
        if _sum(read_file(folder / name, "no such file, and the run needs it")) != expected:
            raise UserError(
                f"{folder / name}: differs from what the run wrote (its sha256 is not that in {MANIFEST}): put the "
                "file back, or train the run again in another folder"
            )


def _read(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST
    sums = entry(read_json(path, "the checksums of the run"), "sha256", dict, path)
    for name, value in sums.items():
        if not isinstance(value, str) or ".." in Path(name).parts or Path(name).is_absolute():
            raise UserError(f"{path}: `sha256` gives {short(value)} for {short(name)}, expected the sha256 of a file")
    return sums


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
