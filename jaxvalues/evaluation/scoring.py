"""Scores the run file of any system against a labels file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import ConfigError, UserError, name_list
from jaxvalues.evaluation.decision import THRESHOLDS_FILE, read_decision
from jaxvalues.evaluation.named_columns import read_named_columns
from jaxvalues.evaluation.official import Scores, score
from jaxvalues.evaluation.predictions import Predictions
from jaxvalues.evaluation.thresholds import decide


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

    def to_json(self) -> dict[str, Any]:
        """The scores as `Scores.to_json`, with `missing_rows` and `absent_categories` where there are any."""
        gaps = {"missing_rows": self.missing, "absent_categories": list(self.absent)}
        return self.scores.to_json() | {name: gap for name, gap in gaps.items() if gap}


def score_files(truth: str | Path, run: str | Path, threshold: float | None = None) -> ScoredRun:
    """Scores a run in the official format, or a probabilities file, against a labels file.

    Rows are matched by ID and columns by name. Probabilities become decisions with `threshold`, or with the
    `thresholds.json` in the same folder. As in the official evaluator, an argument without a row counts as having no
    category, and a category without a column as never predicted. One without a column in the truth is not scored.

    Raises UserError for a faulty file, for IDs that are not in the truth and for probabilities without a threshold, and
    ConfigError for a threshold outside (0, 1].
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError(f"the threshold is {threshold}, expected a number above 0 and at most 1")
    ids, labels, unscored = read_named_columns(truth, binary=True)
    run_ids, values, absent = read_named_columns(run)
    predictions = Predictions(run_ids, values)
    decisions, note = _decide(predictions, Path(run), threshold)
    decisions[:, np.isin(CATEGORIES, absent)] = 0  # whatever the threshold
    row_of = {argument: row for row, argument in enumerate(ids)}
    unknown = [argument for argument in predictions.ids if argument not in row_of]
    if unknown:
        names = name_list(unknown)
        raise UserError(f"{run}: {len(unknown)} of its {len(predictions.ids)} argument IDs are not in {truth}: {names}")
    aligned = np.zeros(labels.shape, np.int8)
    aligned[[row_of[argument] for argument in predictions.ids]] = decisions
    missing = len(ids) - len(predictions.ids)
    notes = [note] if note else []
    if missing:
        notes.append(f"{run} has no row for {missing} of {len(ids)} arguments; these count as having no category.")
    count = f"of {len(CATEGORIES)} categories"
    if absent:
        names = ", ".join(absent)
        notes.append(f"{run} has no column for {len(absent)} {count}; these count as never predicted: {names}.")
    if unscored:
        names = ", ".join(unscored)
        notes.append(f"{truth} has no column for {len(unscored)} {count}; these are not scored: {names}.")
    return ScoredRun(score(labels, aligned), missing, absent, tuple(notes))


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
