"""Which arguments train, which are held out to choose thresholds and the best step, and which are reported."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from jaxvalues.config import DataConfig
from jaxvalues.data.arguments import SPLITS, Split, load_split
from jaxvalues.errors import ConfigError


class Parts(NamedTuple):
    """The arguments of a run. No argument is in two parts; reported splits may lack labels."""

    training: Split
    held_out: Split
    reported: tuple[Split, ...]

    @property
    def by_name(self) -> dict[str, Split]:
        """Every part under its name; a held-out fraction is called `held_out`."""
        held_out = "held_out" if self.held_out.name == self.training.name else self.held_out.name
        return {split.name: split for split in (self.training, *self.reported)} | {held_out: self.held_out}


def load_parts(config: DataConfig) -> Parts:
    """Load what the config names. Raises ConfigError for an unknown split and for labels that are needed and absent."""

    def load(key: str, name: str, labels: bool) -> Split:
        check_split(key, name)
        split = load_split(name, source=config.source, dir=config.dir)
        if labels and split.labels is None:
            raise ConfigError(f"{key}: the labels of {name} are absent, so it can be predicted, but not learnt from")
        return split

    training = load("data.train", config.train, labels=True)
    if isinstance(config.held_out, str):
        held_out = load("data.held_out", config.held_out, labels=True)
    else:
        training, held_out = hold_out(training, config.held_out, config.held_out_by, config.held_out_seed)
    return Parts(training, held_out, tuple(load("data.report", name, labels=False) for name in config.report))


def check_split(key: str, name: str) -> None:
    """Raise ConfigError unless `name`, given as `key`, is a split."""
    if name not in SPLITS:
        raise ConfigError(f"{key}: there is no split `{name}`; it is one of {', '.join(SPLITS)}")


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
