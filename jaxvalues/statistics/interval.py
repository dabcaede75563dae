"""What an interval is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from scipy import stats

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


def around(
    estimate: float,
    se: float,
    df: float,
    *,
    bias: float = 0.0,
    level: float = LEVEL,
    lowest: float = -1.0,
    highest: float = 1.0,
) -> Interval:
    """Student's t times the standard error around the estimate and around the estimate less its bias, both covered.

    The ends are cut at what is possible.
    """
    reach = float(stats.t.ppf(1 - level / 2, df)) * se
    low, high = min(estimate, estimate - bias) - reach, max(estimate, estimate - bias) + reach
    return Interval(float(estimate), float(se), float(max(low, lowest)), float(min(high, highest)), float(df))
