"""What is checked at the start of a run of several processes: that they are the same run, in the same folder."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxvalues.errors import ConfigError, UserError, cut, name_list
from jaxvalues.training.processes import everyone, is_alone

TABLE_ROWS = 8
SEEN_S = 120.0
"""How long a new file may take to show on another host: network file systems keep what they know for a minute."""


def check_same(facts: Callable[[], Mapping[str, Any]]) -> None:
    """Raise ConfigError on all processes unless all of them give the same facts. A process alone computes none.

    Before, each prints a short table: process, key, the value there and that of process 0.
    """
    if is_alone():
        return
    first, *others = everyone("comparing config, code, data and packages", lambda: dict(facts()))
    rows = [
        (number, key, _short(other.get(key)), _short(first.get(key)))
        for number, other in enumerate(others, start=1)
        for key in sorted(first.keys() | other.keys())
        if other.get(key) != first.get(key)
    ]
    if not rows:
        return
    table = [("process", "key", "there", "process 0"), *rows[:TABLE_ROWS]]
    widths = [max(len(str(row[column])) for row in table) for column in range(4)]
    lines = ["  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    more = [f"and {len(rows) - TABLE_ROWS} more"] * (len(rows) > TABLE_ROWS)
    print("\n".join(f"  {line.rstrip()}" for line in (*lines, *more)), file=sys.stderr, flush=True)
    said = name_list((f"{key} of process {number}" for number, key, *_ in rows), most=2)
    raise ConfigError(
        f"the processes of this run differ ({said}): give all of them the same config, code, data and packages"
    )


def check_shared(file: Path, content: str) -> None:
    """Raise UserError on all processes unless each of them finds `content` in the `file` that process 0 wrote."""

    def is_seen() -> bool:
        deadline = time.monotonic() + SEEN_S
        while not _holds(file, content):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)
        return True

    seen = everyone("looking for the run folder", is_seen)
    if not all(seen):
        blind = name_list(number for number, sees in enumerate(seen) if not sees)
        raise UserError(
            f"output: {file.parent} is not the same folder for process {blind} as for process 0: put it "
            "on a file system that all hosts share"
        )


def _short(value: Any) -> str:
    return cut("absent" if value is None else str(value), 24)


def _holds(file: Path, content: str) -> bool:
    try:
        os.listdir(file.parent)  # makes a network file system look again
        return content in file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
