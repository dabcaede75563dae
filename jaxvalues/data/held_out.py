"""Which arguments train, which are held out to choose thresholds and the best step, and which are reported."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from jaxvalues.config import DataConfig
from jaxvalues.data.arguments import SPLITS, Split
from jaxvalues.data.loading import load_split
from jaxvalues.data.subset import few_shot, scarce, take_fraction
from jaxvalues.data.task import TASKS
from jaxvalues.errors import ConfigError

HELD_OUT = "held_out"
"""The name of the held-out part in a run folder."""


class Parts(NamedTuple):
    """The arguments of a run. No argument is in two parts; reported splits may lack labels."""

    training: Split
    held_out: Split
    reported: tuple[Split, ...]
    whole: Split
    """The training split before anything was held out or left out."""
    drawn: str | None = None
    """One sentence about what `data.shots` or `data.fraction` took for training, where one of them did."""

    @property
    def pool(self) -> Split:
        """The split that the held-out part is of: the training split, or another one that it is all of."""
        return self.whole if self.held_out.name == self.whole.name else self.held_out

    @property
    def by_name(self) -> dict[str, Split]:
        """Every part under its name; a held-out fraction or fold is called `held_out`."""
        held_out = HELD_OUT if self.pool is self.whole else self.held_out.name
        return {split.name: split for split in (self.training, *self.reported)} | {held_out: self.held_out}


def load_parts(config: DataConfig) -> Parts:
    """Load what the config names, with the labels of its task.

    `data.shots` and `data.fraction` leave fewer arguments for training, after holding out, and change nothing else.
    Raises ConfigError for an unknown split, for labels that are needed and absent, for folds that cannot be cut, for
    folds of which none is named, and where nothing is left to train on.
    """
    if config.folds is not None and config.fold is None:
        raise ConfigError(
            f"data.folds is {config.folds} and data.fold is not given: one run holds out one fold, from 0 to "
            f"{config.folds - 1}; `jaxvalues train` takes them one after another"
        )

    def load(key: str, name: str, labels: bool) -> Split:
        check_split(key, name)
        split = TASKS[config.task].labelled(load_split(name, source=config.source, dir=config.dir))
        if labels and split.labels is None:
            raise ConfigError(f"{key}: the labels of {name} are absent, so it can be predicted, but not learnt from")
        return split

    whole = load("data.train", config.train, labels=True)
    if isinstance(config.held_out, str):
        training, held_out = whole, load("data.held_out", config.held_out, labels=True)
    elif config.folds is None:
        training, held_out = hold_out(whole, config.held_out, config.held_out_by, config.held_out_seed)
    else:
        fold = cut_folds(whole, config.folds, config.held_out_by, config.held_out_seed)
        training, held_out = (whole.subset(np.flatnonzero(part)) for part in (fold != config.fold, fold == config.fold))
    reported = tuple(load("data.report", name, labels=False) for name in config.report)
    training, drawn = _draw(training, config)
    return Parts(training, held_out, reported, whole, drawn)


def check_split(key: str, name: str) -> None:
    """Raise ConfigError unless `name`, given as `key`, is a split."""
    if name not in SPLITS:
        raise ConfigError(f"{key}: there is no split `{name}`; it is one of {', '.join(SPLITS)}")


def _draw(training: Split, config: DataConfig) -> tuple[Split, str | None]:
    """The arguments that train, fewer with `shots` or `fraction`, and a sentence about which they are."""
    if config.shots is None and config.fraction is None:
        return training, None
    if config.fraction is not None:
        drawn = take_fraction(training, config.fraction, config.subset_seed)
        what = f"{config.fraction:g} of all"
    else:
        task = TASKS[config.task]
        drawn = few_shot(training, config.shots, config.subset_seed, task)
        what = f"{config.shots} of each {task.label}"
        if few := scarce(drawn, config.shots, task):
            what += f"; fewer of {', '.join(f'{category} ({count})' for category, count in few.items())}"
    return drawn, f"trains on {len(drawn)} of {len(training)} arguments: {what} (seed {config.subset_seed})"


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
        group, sizes = _conclusions(split)
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


def cut_folds(
    split: Split, count: int, by: Literal["conclusion", "argument"] = "conclusion", seed: int = 0
) -> np.ndarray:
    """The fold, 0 to `count` − 1, of every argument of a split: [n] int64.

    By conclusion, all arguments of one conclusion are in one fold. The conclusions, those with most arguments first and
    equals in an order drawn from `seed`, go one after another into the fold that has the fewest arguments so far
    (Graham, 1969), so the folds differ in size by no more than one conclusion's arguments. By argument, by at most one.
    Raises ConfigError for more folds than there are conclusions or arguments.
    """
    group, sizes = _conclusions(split) if by == "conclusion" else (np.arange(len(split)), np.ones(len(split), int))
    if count > len(sizes):
        raise ConfigError(
            f"data.folds is {count}, but the {len(split)} arguments of {split.name} have only {len(sizes)} "
            "conclusions, and a conclusion is never cut: give fewer folds, or data.held_out_by=argument"
            if by == "conclusion"
            else f"data.folds is {count}, but {split.name} has only {len(split)} arguments"
        )
    drawn = np.random.default_rng(seed).permutation(len(sizes))
    fold_of_group, filled = np.empty(len(sizes), np.int64), np.zeros(count, np.int64)
    for one in drawn[np.argsort(-sizes[drawn], kind="stable")]:
        fold_of_group[one] = filled.argmin()
        filled[fold_of_group[one]] += sizes[one]
    return fold_of_group[group]


def _conclusions(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The number of every argument's conclusion [n], and how many arguments each conclusion has."""
    conclusions = [argument.conclusion for argument in split.arguments]
    _, group, sizes = np.unique(conclusions, return_inverse=True, return_counts=True)
    return group, sizes
