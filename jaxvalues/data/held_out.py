"""Divides the arguments of a run in three: for training, held out for choices, and reported.

Thresholds and the best step are chosen on the held-out arguments.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from jaxvalues.config import DataConfig
from jaxvalues.data.arguments import SPLITS, Split
from jaxvalues.data.conclusions import group_by_conclusion
from jaxvalues.data.loading import load_split
from jaxvalues.data.subset import few_shot, scarce_classes, take_fraction
from jaxvalues.data.task import TASKS
from jaxvalues.errors import ConfigError, counted

HELD_OUT = "held_out"
"""The name of a held-out fraction or fold in a run folder."""


class Parts(NamedTuple):
    """The arguments of a run. No argument is in two parts. Reported splits may have no labels."""

    training: Split
    held_out: Split
    reported: tuple[Split, ...]
    full_training: Split
    """The whole training split, before `data.held_out`, `data.shots` and `data.fraction`."""
    subset_note: str | None = None
    """What `data.shots` or `data.fraction` selects, in words. None: neither is set."""
    full_held_out: Split | None = None
    """The held-out part before `data.shots` and `data.fraction`. None: they leave it whole."""

    @property
    def pool(self) -> Split:
        """The split that contains the held-out part: the training split, or the other split that is held out."""
        if self.held_out.name == self.full_training.name:
            return self.full_training
        return self.held_out if self.full_held_out is None else self.full_held_out

    @property
    def by_name(self) -> dict[str, Split]:
        """{name: part}. A held-out fraction or fold has the name `held_out`."""
        held_out = HELD_OUT if self.pool is self.full_training else self.held_out.name
        return {split.name: split for split in (self.training, *self.reported)} | {held_out: self.held_out}


def load_parts(config: DataConfig) -> Parts:
    """Loads the splits that the config names, with the labels of its task.

    `data.shots` and `data.fraction` are applied after holding out: to the training arguments and, unless
    `data.full_held_out` is set, to the held-out arguments. Raises ConfigError for an unknown split, for missing labels,
    for more folds than there are conclusions, for `data.folds` without `data.fold`, and when no argument is left in one
    of the two parts.
    """
    if config.folds is not None and config.fold is None:
        raise ConfigError(
            f"data.folds is {config.folds} and data.fold is not given: a single run needs one of the folds 0 to "
            f"{config.folds - 1}; `jaxvalues train` runs all folds in turn"
        )

    def load(key: str, name: str, labels: bool) -> Split:
        check_split(key, name)
        split = labelled_split(name, config)
        if labels and split.labels is None:
            raise ConfigError(f"{key}: the split {name} has no labels (or only 0), expected a split with labels")
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
    if config.shots is None and config.fraction is None:
        _check_positives(held_out, config)
        return Parts(training, held_out, reported, whole)
    few_training = _draw(training, config)
    few_held_out = held_out if config.full_held_out else _draw(held_out, config)
    _check_positives(few_held_out, config)
    chosen_on = f"all {len(held_out)} held-out arguments (data.full_held_out)"
    if not config.full_held_out:
        chosen_on = _subset_note(few_held_out, held_out, config, "held-out ")
    note = (
        f"trains on {_subset_note(few_training, training, config)}\nchooses thresholds and the best step on {chosen_on}"
    )
    return Parts(few_training, few_held_out, reported, whole, note, None if config.full_held_out else held_out)


def labelled_split(name: str, config: DataConfig) -> Split:
    """A split with the labels of the task of a config. Categories that are all 0 stand for hidden labels: none."""
    task = TASKS[config.task]
    split = task.relabel(load_split(name, source=config.source, dir=config.dir))
    is_hidden = task.has_categories and split.labels is not None and not split.labels.any()
    return replace(split, labels=None) if is_hidden else split


def _check_positives(held_out: Split, config: DataConfig) -> None:
    """Raise ConfigError for a held-out part on which nothing can be chosen."""
    if TASKS[config.task].has_categories and not held_out.labels.any():
        raise ConfigError(
            f"data.held_out: all labels of the {counted(len(held_out), 'held-out argument')} are 0, so no step and no "
            "threshold can be chosen on them"
        )


def check_split(key: str, name: str) -> None:
    """Raises ConfigError unless `name`, the value of the config key `key`, is a split."""
    if name not in SPLITS:
        raise ConfigError(f"{key}: there is no split `{name}`, expected one of {', '.join(SPLITS)}")


def _draw(split: Split, config: DataConfig) -> Split:
    """The arguments that `data.shots` or `data.fraction` selects."""
    if config.fraction is not None:
        return take_fraction(split, config.fraction, config.subset_seed)
    return few_shot(split, config.shots, config.subset_seed, TASKS[config.task])


def _subset_note(drawn: Split, split: Split, config: DataConfig, kind: str = "") -> str:
    """How many arguments were drawn, and how, in words."""
    if config.fraction is not None:
        what = f"{config.fraction:g} of all"
    else:
        task = TASKS[config.task]
        what = f"{config.shots} of each {task.label}"
        if few := scarce_classes(drawn, config.shots, task):
            what += f"; fewer of {', '.join(f'{category} ({count})' for category, count in few.items())}"
    return f"{len(drawn)} of {len(split)} {kind}arguments: {what} (seed {config.subset_seed})"


def hold_out(
    split: Split, fraction: float, by: Literal["conclusion", "argument"] = "conclusion", seed: int = 0
) -> tuple[Split, Split]:
    """Divides a split in (rest, held out). The held-out part has about `fraction` of the rows. Both keep the order.

    By conclusion, all arguments of a conclusion (see `jaxvalues.data.conclusions`) are in the same part. The official
    splits share no conclusion either, so the held-out part differs from the training part in the same way as the test
    data. Raises ConfigError if one part is empty.
    """
    random = np.random.default_rng(seed)
    if by == "argument":
        held = random.permutation(len(split))[: round(fraction * len(split))]
    else:
        group, sizes = group_by_conclusion(split.arguments)
        order = random.permutation(len(sizes))
        # The number of groups, in this order, whose total size is closest to the fraction.
        reached = np.concatenate([[0], np.cumsum(sizes[order])])
        count = np.abs(reached - fraction * len(split)).argmin()
        held = np.flatnonzero(np.isin(group, order[:count]))
    mask = np.isin(np.arange(len(split)), held)
    if mask.all() or not mask.any():
        raise ConfigError(
            f"data.held_out: the fraction {fraction} of the {len(split)} arguments of {split.name}, held out by {by}, "
            "leaves one part empty"
        )
    return split.subset(np.flatnonzero(~mask)), split.subset(np.flatnonzero(mask))


def cut_folds(
    split: Split, count: int, by: Literal["conclusion", "argument"] = "conclusion", seed: int = 0
) -> np.ndarray:
    """The fold of every argument of a split, 0 to `count` − 1: [n] int64.

    By conclusion, all arguments of a conclusion are in the same fold. The conclusions are sorted by their number of
    arguments, largest first, with ties in a random order of `seed`. Each goes to the fold that has the fewest arguments
    so far (Graham, 1969). The sizes of two folds differ by at most one conclusion's arguments; by argument, by at most
    one. Raises ConfigError for more folds than there are conclusions or arguments.
    """
    if by == "conclusion":
        group, sizes = group_by_conclusion(split.arguments)
    else:
        group, sizes = np.arange(len(split)), np.ones(len(split), np.int64)
    if count > len(sizes):
        raise ConfigError(
            f"data.folds is {count}, but the {len(split)} arguments of {split.name} have only {len(sizes)} "
            "conclusions, which are never divided: give fewer folds, or data.held_out_by=argument"
            if by == "conclusion"
            else f"data.folds is {count}, but {split.name} has only {counted(len(split), 'argument')}"
        )
    drawn = np.random.default_rng(seed).permutation(len(sizes))
    fold_of_group, filled = np.empty(len(sizes), np.int64), np.zeros(count, np.int64)
    for one in drawn[np.argsort(-sizes[drawn], kind="stable")]:
        fold_of_group[one] = filled.argmin()
        filled[fold_of_group[one]] += sizes[one]
    return fold_of_group[group]
