"""The results of a study: what the report is made of, without any run in the way of reading it.

Everything here is read from finished runs and computed from their predictions; nothing trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxvalues.data.arguments import Split
from jaxvalues.evaluation.coverage import mark
from jaxvalues.evaluation.official import Scores
from jaxvalues.run.embeddings import Embedded
from jaxvalues.statistics.interval import Interval
from jaxvalues.statistics.tests import TTest
from jaxvalues.statistics.variance import VarianceSplit
from jaxvalues.study.schema import Study


@dataclass(frozen=True, eq=False)
class RunResult:
    """One finished run: a system with one value of each repeated key."""

    repeated: Mapping[str, Any]
    """{repeated key: value}, such as {"seed": 0}."""
    folder: Path
    held_out: Scores
    scores: Mapping[str, Scores]
    """{reported split: scores}."""
    logits: Mapping[str, np.ndarray]
    """{reported split: [n, C] float32}, in the order of the split's arguments."""
    decisions: Mapping[str, np.ndarray]
    """{reported split: [n, C] bool}, by the run's own thresholds."""
    curve: tuple[Mapping[str, float], ...]
    """The held-out evaluations while training, in order: step, loss, official_f1, mean_category_f1."""
    step: int | None
    """The step whose parameters predict."""
    embeddings: Mapping[str, Embedded]
    """Of the held-out arguments, "before" and "after" training; empty without a contrastive loss."""
    seconds: float | None
    """Wall-clock seconds of the whole run, a share of them where several trained at once; None if not recorded."""
    peak_bytes: int | None
    """The largest memory of the process; None where it was not recorded."""
    together: int | None = None
    """How many runs trained at once; None where that was not recorded."""


@dataclass(frozen=True)
class Trial:
    """One value of each nuisance key, tried on held-out arguments."""

    values: Mapping[str, Any]
    figure: float
    """The study's figure of the held-out arguments; never of a reported split, unless the study is a replication."""


@dataclass(frozen=True)
class Failure:
    """A run that ended with an error."""

    coordinates: Mapping[str, Any]
    """{repeated or nuisance key: value}."""
    message: str


@dataclass(frozen=True, eq=False)
class SystemResult:
    """One of the systems that a study compares."""

    name: str
    changes: Mapping[str, Any]
    """The config keys that make it this system."""
    chosen: Mapping[str, Any]
    """{nuisance key: the value chosen on held-out arguments}."""
    trials: tuple[Trial, ...]
    edges: tuple[str, ...]
    """Nuisance keys whose chosen value lies on the edge of its range."""
    runs: tuple[RunResult, ...]
    failures: tuple[Failure, ...]
    trained_parameters: int | None
    """Heads included; None where the checkpoint is not here and no run is finished."""
    frozen_parameters: int | None
    training_flops: float | None
    """Estimated floating-point operations of training once; None without the data here."""
    intervals: Mapping[str, Interval]
    """{reported split: interval of the official F1}, over seeds and conclusions: "on new topics"."""
    mean_category_intervals: Mapping[str, Interval]
    """The same of the mean category F1."""
    variance: Mapping[str, VarianceSplit]
    """{reported split: where its variance comes from}, for systems with every combination of the repeated keys."""

    def mark(self, split: str) -> str:
        """What stands behind its figures on a split: a mark where a run has answers missing, else nothing."""
        return mark(*(run.scores[split] for run in self.runs))


@dataclass(frozen=True, eq=False)
class ContrastResult:
    """A declared comparison a - b on one reported split, over the repeated coordinates that both have."""

    a: str
    b: str
    split: str
    differences: Mapping[str, float]
    """{coordinates in words, such as "seed 0": difference of the study's figure}."""
    difference: float
    interval: Interval
    """Two levels, seeds and conclusions: "on new topics too"."""
    t: TTest | None
    """Paired over seeds: "on this test set"; None with fewer than two runs of each."""
    welch: TTest | None
    sign_flip: float | None
    """Exact p; None with fewer than six runs of each."""
    permutation: float | None
    """p by swapping whole conclusions, where each side is one fixed run; None otherwise."""
    p: float
    """What decides: the paired t's over seeds, or `permutation` of fixed runs."""
    p_adjusted: float
    """Holm's, over all declared contrasts on this split."""
    over: tuple[str, ...]
    """The repeated keys of which the compared runs have several values."""
    detectable: float
    """The minimum detectable difference with 80 % power: it describes sensitivity and decides nothing."""
    category_differences: np.ndarray
    """[C], of the F1 of every category, mean over the runs; nan for a category without positives."""
    category_p_adjusted: np.ndarray
    """[C], by permutation of whole conclusions and t over the runs, whichever p is larger, Benjamini–Hochberg over the
    categories; nan as above."""

    @property
    def decided(self) -> bool:
        """Whether the data decide which is better, at 5 %."""
        return self.p_adjusted < 0.05


@dataclass(frozen=True, eq=False)
class StudyResults:
    """A study with everything that its report says."""

    study: Study
    digest: str
    """Of the study file and everything that decides its numbers."""
    splits: Mapping[str, Split]
    """{reported split: its arguments with labels}."""
    categories: tuple[str, ...]
    systems: Mapping[str, SystemResult]
    """By name, in the order of the study file."""
    contrasts: tuple[ContrastResult, ...]
    missing: tuple[str, ...]
    """One sentence for each part of the study that is not there yet."""
    notes: tuple[str, ...]
    """One sentence for each thing that a reader must know: edges of ranges, replications, few seeds."""
    environment: Mapping[str, Any]
    """Versions, devices and data of the runs."""

    @property
    def figure_name(self) -> str:
        """The name of the figure that the study compares."""
        return {"official_f1": "official F1", "mean_category_f1": "mean category F1"}[self.study.metric]

    def intervals(self, system: SystemResult) -> Mapping[str, Interval]:
        """{reported split: interval of the figure that the study compares} of a system."""
        return system.intervals if self.study.metric == "official_f1" else system.mean_category_intervals

    def figure_of(self, run: RunResult, split: str) -> float:
        """The figure that the study compares, of one run."""
        return float(run.scores[split].headline[self.study.metric])

    def to_json(self) -> dict[str, Any]:
        """A plain dict for `json.dump`: the figures, intervals and tests, without predictions."""
        return {
            "study": self.study.name,
            "question": self.study.question,
            "digest": self.digest,
            "metric": self.study.metric,
            "systems": {name: _system_json(system, self.study.metric) for name, system in self.systems.items()},
            "contrasts": [_contrast_json(one) for one in self.contrasts],
            "missing": list(self.missing),
            "notes": list(self.notes),
        }


def _system_json(system: SystemResult, metric: str) -> dict[str, Any]:
    return {
        "changes": dict(system.changes),
        "chosen": dict(system.chosen),
        "trials": [{"values": dict(one.values), metric: one.figure} for one in system.trials],
        "trained_parameters": system.trained_parameters,
        "frozen_parameters": system.frozen_parameters,
        "training_flops": system.training_flops,
        "splits": {
            split: {
                "official_f1": interval.estimate,
                **interval.to_json(),
                "mean_category_f1": system.mean_category_intervals[split].estimate,
            }
            for split, interval in system.intervals.items()
        },
        "runs": [
            {
                "repeated": dict(run.repeated),
                "folder": str(run.folder),
                "official_f1": {split: scores.official_f1 for split, scores in run.scores.items()},
                "held_out_official_f1": run.held_out.official_f1,
                "coverage": {split: scores.coverage for split, scores in run.scores.items()},
                "seconds": run.seconds,
                "peak_bytes": run.peak_bytes,
                "together": run.together,
            }
            for run in system.runs
        ],
    }


def _contrast_json(one: ContrastResult) -> dict[str, Any]:
    return {
        "a": one.a,
        "b": one.b,
        "split": one.split,
        "difference": one.difference,
        **one.interval.to_json(),
        "differences": dict(one.differences),
        "p": one.p,
        "p_adjusted": one.p_adjusted,
        "p_welch": None if one.welch is None else one.welch.p,
        "p_sign_flip": one.sign_flip,
        "detectable": one.detectable,
        "decided": one.decided,
    }
