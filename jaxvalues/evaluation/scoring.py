"""Scores the run file of any system against a labels file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvalues.data.conclusions import group_by_conclusion
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.tsv import read_arguments
from jaxvalues.errors import ConfigError, UserError, name_list
from jaxvalues.evaluation.coverage import missing_file
from jaxvalues.evaluation.decision import THRESHOLDS_FILE, read_decision
from jaxvalues.evaluation.named_columns import NamedColumns, read_named_columns
from jaxvalues.evaluation.official import Scores, score
from jaxvalues.evaluation.predictions import Predictions
from jaxvalues.evaluation.thresholds import decide
from jaxvalues.statistics.bootstrap import resample
from jaxvalues.statistics.counts import count
from jaxvalues.statistics.interval import Interval


@dataclass(frozen=True)
class ScoredRun:
    """The scores of a run file, with notes on how they were computed."""

    scores: Scores
    missing: int
    """The number of arguments of the truth without a row in the run. Each counts as having no category."""
    absent: tuple[str, ...]
    """The categories without a column in the run. Each counts as never predicted."""
    notes: tuple[str, ...]
    """Sentences to print with the scores: the applied threshold, missing rows and absent columns."""
    interval: Interval | None = None
    """That of the official F1, where one was asked for."""

    def to_json(self) -> dict[str, Any]:
        """The scores as `Scores.to_json`, with `missing_rows` and `absent_categories` where there are any.

        With an interval, its `se` and `interval` follow.
        """
        gaps = {"missing_rows": self.missing, "absent_categories": list(self.absent)}
        spread = self.interval.to_json() if self.interval else {}
        return self.scores.to_json() | {name: gap for name, gap in gaps.items() if gap} | spread


def score_files(
    truth: str | Path, run: str | Path, threshold: float | None = None, arguments: str | Path | None = None
) -> ScoredRun:
    """Scores a run in the official format, or a probabilities file, against a labels file.

    Rows are matched by ID and columns by name. Probabilities become decisions with `threshold`, or with the
    `thresholds.json` in the same folder. As in the official evaluator, an argument without a row counts as having no
    category, and a category without a column as never predicted. One without a column in the truth is not scored.

    With `arguments`, a file of the arguments of the truth in the published format, the official F1 has an interval,
    which resamples their conclusions.

    Raises UserError for a faulty file, for IDs that are not in the truth and for probabilities without a threshold, and
    ConfigError for a threshold outside (0, 1].
    """
    labels = read_named_columns(truth, binary=True)
    decided = decide_run(truth, labels, run, threshold)
    scored = decided.scored
    if arguments is None:
        return scored
    group = read_conclusions(arguments, truth, labels.ids)
    interval = resample(count(labels.values, decided.decisions[None], group)).interval(0)
    span = f"95 % interval {interval.low:.3f} to {interval.high:.3f}"
    note = f"Official F1 {interval.estimate:.3f}, {span}, by resampling {group.max() + 1} conclusions."
    return replace(scored, interval=interval, notes=(*scored.notes, note))


class DecidedRun(NamedTuple):
    """A run's decisions on all arguments of the truth, and their scores."""

    decisions: np.ndarray
    """[n, C] of 0 and 1, in the order of the truth."""
    scored: ScoredRun


def decide_run(truth: str | Path, labels: NamedColumns, run: str | Path, threshold: float | None) -> DecidedRun:
    """Reads and scores a run against `labels`, what the labels file `truth` holds; see `score_files`."""
    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError(f"the threshold is {threshold}, expected a number above 0 and at most 1")
    ids = labels.ids
    run_ids, values, absent = read_named_columns(run)
    predictions = Predictions(run_ids, values)
    decisions, note = _decide(predictions, Path(run), threshold)
    decisions[:, np.isin(CATEGORIES, absent)] = 0  # whatever the threshold
    row_of = {argument: row for row, argument in enumerate(ids)}
    unknown = [argument for argument in predictions.ids if argument not in row_of]
    if unknown:
        names = name_list(unknown)
        raise UserError(f"{run}: {len(unknown)} of its {len(predictions.ids)} argument IDs are not in {truth}: {names}")
    aligned = np.zeros(labels.values.shape, np.int8)
    aligned[[row_of[argument] for argument in predictions.ids]] = decisions
    missing = len(ids) - len(predictions.ids)
    notes = [note] if note else []
    if (listed := missing_file(Path(run))) is not None:
        notes.append(f"{run} is INCOMPLETE: the questions in {listed.name} have no answer, and are guesses here.")
    if missing:
        notes.append(f"{run} has no row for {missing} of {len(ids)} arguments; these count as having no category.")
    of_all = f"of {len(CATEGORIES)} categories"
    if absent:
        names = ", ".join(absent)
        notes.append(f"{run} has no column for {len(absent)} {of_all}; these count as never predicted: {names}.")
    if labels.absent:
        names = ", ".join(labels.absent)
        notes.append(f"{truth} has no column for {len(labels.absent)} {of_all}; these are not scored: {names}.")
    return DecidedRun(aligned, ScoredRun(score(labels.values, aligned), missing, absent, tuple(notes)))


def read_conclusions(arguments: str | Path, truth: str | Path, ids: Sequence[str]) -> np.ndarray:
    """The number of the conclusion of each argument of `ids` [n], from a file of arguments in the published format.

    The file may hold other arguments too. Raises UserError for a faulty file, for arguments of the truth that it does
    not hold, and if they all have one conclusion: nothing can be resampled then.
    """
    by_id = {argument.id: argument for argument in read_arguments(arguments)}
    absent = [argument for argument in ids if argument not in by_id]
    if absent:
        names = name_list(absent)
        raise UserError(f"{arguments}: {len(absent)} of the {len(ids)} arguments of {truth} are not in it: {names}")
    group, sizes = group_by_conclusion([by_id[argument] for argument in ids])
    if len(sizes) < 2:
        raise UserError(f"{arguments}: the arguments of {truth} have one conclusion, expected at least two to resample")
    return group


def _decide(predictions: Predictions, run: Path, threshold: float | None) -> tuple[np.ndarray, str | None]:
    """Decisions [n, C], and a sentence about the threshold or None."""
    if predictions.decided:
        note = None if threshold is None else f"{run} has only 0 and 1, so the threshold {threshold} changes nothing."
        return decide(predictions.probabilities, 0.5), note
    if threshold is not None:
        return decide(predictions.probabilities, threshold), f"Probabilities of {run} decided at {threshold}."
    path = run.parent / THRESHOLDS_FILE
    if not path.is_file():
        raise UserError(
            f"{run}: the file has probabilities: give --threshold (such as 0.3), or put {THRESHOLDS_FILE} in its folder"
        )
    decision = read_decision(run.parent)
    note = f"Probabilities of {run} decided at {decision.span} ({path}: {decision.how})."
    return decide(predictions.probabilities, decision.probabilities), note
