"""What is known of the published files: where each lies, its size and its checksum.

The files stand in `checksums.tsv`, which TFDS verifies its downloads with. Imports no TFDS.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

RECORD = "https://zenodo.org/records/10564870"
NYT_SHA256 = "fb02505106eaeb7ad5f2f1eaa54346a4286270d95707e8414eeb02649964615b"
"""Of `arguments-test-nyt.tsv`, which each user rebuilds; published with the organisers' nyt-downloader."""


@dataclass(frozen=True)
class ReleaseFile:
    """A file of the Zenodo record."""

    name: str
    url: str
    bytes: int
    sha256: str


@cache
def release_files() -> dict[str, ReleaseFile]:
    """The files whose checksum is known, by name."""
    table = (files(__package__) / "checksums.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines())
    return {name: ReleaseFile(name, url, int(size), sha256) for url, size, sha256, name in rows}


def matches_release(path: str | Path) -> bool | None:
    """Whether a file is the published one, byte for byte; None when no checksum is known for its name."""
    name = Path(path).name
    known = {file.name: file.sha256 for file in release_files().values()} | {"arguments-test-nyt.tsv": NYT_SHA256}
    if name not in known:
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() == known[name]
