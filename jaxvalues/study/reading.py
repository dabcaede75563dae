"""Reading what finished runs wrote: predictions, scores and curves, with the truth they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxvalues.config import Config
from jaxvalues.config.reading import read_json
from jaxvalues.data.arguments import Split
from jaxvalues.data.conclusions import group_by_conclusion
from jaxvalues.data.held_out import HELD_OUT
from jaxvalues.ensemble.columns import leaves
from jaxvalues.errors import UserError
from jaxvalues.evaluation.official import Scores, score
from jaxvalues.evaluation.predictions import read_logits, read_predictions
from jaxvalues.run.embeddings import read_embeddings
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.manifest import check_manifest
from jaxvalues.statistics.counts import Counts, count
from jaxvalues.study.measured import Measured, read_measured
from jaxvalues.study.results import RunResult
from jaxvalues.training.metrics import read_metrics


@dataclass(frozen=True, eq=False)
class Truth:
    """A reported split with labels, and the number of each argument's conclusion [n]."""

    split: Split
    group: np.ndarray

    def counts(self, runs: Sequence[RunResult]) -> Counts:
        """Counts of runs [R]."""
        return count(self.split.labels, np.stack([one.decisions[self.split.name] for one in runs]), self.group)


def truths_of(splits: Sequence[Split]) -> dict[str, Truth]:
    """{name: truth} of the splits of which something can be said (see `why_left_out`)."""
    kept = [split for split in splits if why_left_out(split) is None]
    return {split.name: Truth(split, group_by_conclusion(split.arguments)[0]) for split in kept}


def why_left_out(split: Split) -> str | None:
    """Why nothing is said of a reported split; None where there is no reason."""
    if split.labels is None:
        return "no labels here, so it is not scored."
    if len(group_by_conclusion(split.arguments)[1]) < 2:
        return "all arguments are about one conclusion, so there are no intervals and tests (runs have scores.json)."
    return None


def read_run(
    path: Path,
    repeated: Mapping[str, Any],
    truths: Mapping[str, Truth],
    held_out_split: str | None = None,
    took: Measured | None = None,
) -> RunResult:
    """A finished run or ensemble, with the value of each `repeated` key.

    `held_out_split` is the reported split that the run held out, if any. `took` is what it took, where its own record
    is not all. Raises UserError for predictions of other
    arguments.
    """
    folder = RunFolder(path)
    check_manifest(path, tables=True)
    logits, decisions = {}, {}
    for name, truth in truths.items():
        file = HELD_OUT if name == held_out_split else name
        read = read_logits(folder.path / f"logits-{file}.tsv")
        decided = read_predictions(folder.path / f"predictions-{file}.tsv")
        if read.ids != truth.split.ids or decided.ids != truth.split.ids:
            raise UserError(f"{folder.path}: the predictions of {name} are of other arguments than the data here have")
        logits[name], decisions[name] = read.values, decided.probabilities > 0.5
    held_out, scores = folder.held_out_scores(), folder.scores()
    assert isinstance(held_out, Scores)
    took = read_measured(folder.path) if took is None else took
    content = read_json(folder.path / "scores.json", "the scores of the run")
    curve = [values for _, values in read_metrics(folder.path / "metrics.jsonl") if values.get("kind") == "held_out"]
    return RunResult(
        repeated=repeated,
        folder=folder.path,
        held_out=held_out,
        scores={
            name: score(truth.split.labels, decisions[name]) if name not in scores else scores[name]
            for name, truth in truths.items()
        },
        logits=logits,
        decisions=decisions,
        curve=tuple(curve),
        step=content.get("step"),
        embeddings=read_embeddings(folder.path),
        seconds=took.seconds,
        peak_bytes=took.peak_bytes,
        together=took.together,
    )


def config_of(path: Path) -> Config:
    """The config of a run, or of the first run of an ensemble."""
    return leaves(RunFolder(path))[0].config()
