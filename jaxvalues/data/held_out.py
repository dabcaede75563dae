"""Holding out a part of a split, on which thresholds and the best step are chosen."""

from __future__ import annotations

from typing import Literal

import numpy as np

from jaxvalues.data.arguments import Split
from jaxvalues.errors import ConfigError


def hold_out(
    split: Split, fraction: float, by: Literal["conclusion", "argument"] = "conclusion", seed: int = 0
) -> tuple[Split, Split]:
    """Part a split in (rest, held out), the latter with about `fraction` of the rows; both keep the file's order.

    By conclusion, whole conclusions are held out, as between the official splits, none of which share one: what is
    chosen there faces the same shift as what is reported. Raises ConfigError if either part would be empty.
    """
    random = np.random.default_rng(seed)
    if by == "argument":
        held = random.permutation(len(split))[: round(fraction * len(split))]
    else:
        _, group, sizes = np.unique(
            [argument.conclusion for argument in split.arguments], return_inverse=True, return_counts=True
        )
        order = random.permutation(len(sizes))
        # The number of groups, taken in this order, that comes nearest to the fraction asked for.
        reached = np.concatenate([[0], np.cumsum(sizes[order])])
        count = np.abs(reached - fraction * len(split)).argmin()
        held = np.flatnonzero(np.isin(group, order[:count]))
    mask = np.isin(np.arange(len(split)), held)
    if mask.all() or not mask.any():
        raise ConfigError(
            f"data.held_out: a fraction of {fraction} of the {len(split)} arguments of {split.name}, held out by {by}, "
            "leaves one part empty"
        )
    return split.subset(np.flatnonzero(~mask)), split.subset(np.flatnonzero(mask))
