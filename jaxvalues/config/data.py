"""The section `data`: which arguments train, choose the thresholds and are reported."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from jaxvalues.config.section import Section, Text


class DataConfig(Section):
    """Which arguments train, which choose thresholds and the best step, and which are reported."""

    task: Literal["values", "stance"] = "values"
    """`values`: the 20 categories that an argument draws on. `stance`: whether the premise is in favor of the
    conclusion or against it, from these two fields alone (the study's NLI side task)."""
    source: Literal["touche23", "sample"] = "touche23"
    """`touche23`: Touché23-ValueEval, downloaded or read from `dir`. `sample`: the small sample in the package."""
    dir: Text | None = None
    """Folder with the TSV files of the data set. Nothing is downloaded when it is given."""
    train: Text = "training"
    """Split to train on."""
    held_out: float | str = 0.1
    """Arguments that choose thresholds and the best step: a fraction of the training split, or the name of another
    split."""
    held_out_by: Literal["conclusion", "argument"] = "conclusion"
    """What a fraction holds out: whole conclusions, as between the official splits, or single arguments. Conclusions
    that differ only in case, punctuation or blanks count as one."""
    held_out_seed: int = Field(0, ge=0)
    """Seed that draws the held-out part. It is separate from `seed`, so runs of several seeds train on the same
    arguments."""
    folds: int | None = Field(None, ge=2)
    """Number of folds of the training split. Each fold is held out once, in place of the fraction `held_out`."""
    fold: int | None = Field(None, ge=0)
    """Fold that this run holds out, counted from 0. null: one run per fold, and their ensemble."""
    report: tuple[Text, ...] = ("validation", "test")
    """Splits whose scores are reported. They never choose anything."""
    shots: int | None = Field(None, ge=1)
    """Few-shot training: this many positive arguments per category (or per stance) train, and no others. As many are
    drawn from the held-out arguments, so thresholds and the best step are chosen on labels as scarce as those of
    training (Perez et al. 2021, "True Few-Shot Learning"). Drawn once per run, with `subset_seed`."""
    fraction: float | None = Field(None, gt=0, le=1)
    """Share of the training arguments to train on, and of the held-out arguments to choose on. Drawn once per run, with
    `subset_seed`."""
    full_held_out: bool = False
    """shots, fraction: choose thresholds and the best step on all held-out arguments. Their labels are then not counted
    as scarce."""
    subset_seed: int = Field(0, ge=0)
    """Seed that draws the arguments of `shots` and `fraction`. It is separate from `seed`, so runs of several seeds
    train on the same arguments."""
    negatives: float | None = Field(None, gt=0)
    """Question formulations: train on every positive pair of argument and category, and on this many negative pairs for
    each. The negative pairs are drawn anew in every epoch, with the seed. null: ask about all 20 categories of every
    argument."""
    max_length: int = Field(256, ge=4)
    """Longest input in tokens. A longer input is truncated at the end of its premise; the run counts and prints
    these."""
    buckets: tuple[int, ...] = (32, 48, 64, 96, 128, 256)
    """Lengths in tokens that batches are padded to. Each costs one compilation for training and one for evaluation."""

    @model_validator(mode="after")
    def _reports_once(self) -> DataConfig:
        if twice := next((split for split in self.report if self.report.count(split) > 1), None):
            raise ValueError(f"`report` names {twice} twice")
        return self
