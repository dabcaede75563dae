"""What an interval is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

LEVEL = 0.05
"""The chance of error of every interval and test, unless told otherwise: intervals are of 95 %."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its standard error and interval."""

    estimate: float
    se: float
    low: float
    high: float
    df: float = math.inf
    """The degrees of freedom behind the standard error; few conclusions with most of the arguments make them few."""

    def to_json(self) -> dict[str, Any]:
        """`se` and `interval`, as `jaxvalues score --json` prints them."""
        return {"se": self.se, "interval": [self.low, self.high]}
