"""What the runs of a study took: seconds and memory, beside the other files of each run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from jaxvalues.config.reading import read_json
from jaxvalues.config.writing import write_json

MEASURED = "measured.json"
"""In the folder of a run of a study: its seconds and memory."""


class Measured(NamedTuple):
    """Wall-clock seconds and the largest memory of the process in bytes; None where they were not recorded."""

    seconds: float | None = None
    peak_bytes: int | None = None


def read_measured(folder: Path) -> Measured:
    """What a run took. Raises UserError for a file that a study did not write."""
    file = folder / MEASURED
    if not file.is_file():
        return Measured()
    content = read_json(file, "what a run took")
    return Measured(*(content.get(key) for key in Measured._fields))


def write_measured(folder: Path, took: Measured) -> None:
    """Record what a run took."""
    seconds = None if took.seconds is None else round(took.seconds, 2)
    write_json(folder / MEASURED, {"seconds": seconds, "peak_bytes": took.peak_bytes})


def together(each: list[Measured]) -> Measured:
    """What several runs took in all: the sum of the seconds, as far as they are known, and the largest memory."""
    seconds = [one.seconds for one in each if one.seconds is not None]
    peaks = [one.peak_bytes for one in each if one.peak_bytes is not None]
    return Measured(sum(seconds) if seconds else None, max(peaks, default=None))
