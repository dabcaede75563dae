"""What the runs of a study took: seconds and memory, beside the other files of each run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from jaxvalues.config.reading import read_json
from jaxvalues.config.writing import write_json

MEASURED = "measured.json"
"""In the folder of a run of a study: its seconds and memory, and how many runs shared them."""


class Measured(NamedTuple):
    """What a run took; None where it was not recorded."""

    seconds: float | None = None
    """Wall-clock seconds; the share of one run where several trained at once."""
    peak_bytes: int | None = None
    """The largest memory of the process."""
    together: int | None = None
    """How many runs trained at once."""


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
    write_json(folder / MEASURED, took._replace(seconds=seconds)._asdict())


def together(each: list[Measured]) -> Measured:
    """What several runs took in all: the sum of the known seconds, and the largest of the others."""
    seconds = [one.seconds for one in each if one.seconds is not None]
    peaks = [one.peak_bytes for one in each if one.peak_bytes is not None]
    numbers = [one.together for one in each if one.together is not None]
    return Measured(sum(seconds) if seconds else None, max(peaks, default=None), max(numbers, default=None))
