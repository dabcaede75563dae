"""The published files: name, address, size and checksum of each.

They come from `checksums.tsv`, with which TFDS verifies its downloads. This module does not import TFDS.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

RECORD = "https://zenodo.org/records/10564870"
NYT_SHA256 = "fb02505106eaeb7ad5f2f1eaa54346a4286270d95707e8414eeb02649964615b"
"""The checksum of `arguments-test-nyt.tsv`, which users rebuild themselves. Source: the organisers' nyt-downloader."""


@dataclass(frozen=True)
class ReleaseFile:
    """A file of the Zenodo record."""

    name: str
    url: str
    bytes: int
    sha256: str


@cache
def release_files() -> dict[str, ReleaseFile]:
    """{name: file} of the files with a known checksum."""
    table = (files(__package__) / "checksums.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines())
    return {name: ReleaseFile(name, url, int(size), sha256) for url, size, sha256, name in rows}


def matches_release(path: str | Path) -> bool | None:
    """Whether a file equals the published one, byte for byte. None: no checksum is known for its name."""
    name = Path(path).name
    known = {file.name: file.sha256 for file in release_files().values()} | {"arguments-test-nyt.tsv": NYT_SHA256}
    if name not in known:
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() == known[name]
