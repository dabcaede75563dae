"""The end of every run, whoever made the predictions: a network, a frozen one, an ensemble.

Held-out predictions → decision → prediction files → scores.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxvalues.config import Config, DecisionConfig
from jaxvalues.data.arguments import Split
from jaxvalues.data.held_out import HELD_OUT
from jaxvalues.data.task import TASKS, Task
from jaxvalues.evaluation.coverage import for_tuning, score_answered
from jaxvalues.evaluation.decision import Decision, choose_thresholds, side_by_side, sigmoid
from jaxvalues.evaluation.measures import TaskScores, measure_of
from jaxvalues.evaluation.thresholds import EXCLUDED, is_asked
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.prediction import Predicted
from jaxvalues.training.losses import LossHyperparameters, category_losses

Rows = dict[str, dict[str, TaskScores]]
"""{decision: {split: scores}}."""


class Outcome(NamedTuple):
    """What a run decides and scores; a reported split without labels has the scores None.

    `rows` are the scores of other decisions about the same logits, where these were asked for.
    """

    decision: Decision
    held_out: TaskScores
    reported: dict[str, TaskScores | None]
    rows: Rows | None = None

    @property
    def scores(self) -> dict[str, TaskScores]:
        """The scores of the reported splits that have labels."""
        return {name: scores for name, scores in self.reported.items() if scores is not None}


def finish(
    folder: RunFolder,
    settings: DecisionConfig,
    held_out: Predicted,
    reported: Iterable[Predicted],
    *,
    step: int | None = None,
    how: str = "{}",
    compare: bool = False,
) -> Outcome:
    """Tune the decision on held-out predictions, apply it to them and to every reported split, and write it all.

    `how` is put around the words that say how the decision was made. `step` is the step of the parameters, None for an
    ensemble. With `compare`, other decisions are scored too (`evaluation.decision.side_by_side`). Writing scores.json
    is the last thing: it makes the run a finished one.
    """
    known = for_tuning(held_out.split, held_out.logits, held_out.missing)
    chosen = choose_thresholds(settings, *known, measure_of(folder.task).tune)
    decision = Decision(chosen.thresholds, how.format(chosen.how))
    folder.write_decision(decision)
    held_out = held_out._replace(split=replace(held_out.split, name=HELD_OUT))
    (held_out_scores,) = apply_decision(folder, decision, [held_out]).values()
    rows = None
    if compare:
        reported = list(reported)
        rows = compared(folder.task, held_out, reported)
        folder.write_decisions(rows)
    outcome = Outcome(decision, held_out_scores, apply_decision(folder, decision, reported), rows)
    coverage = None
    if held_out.missing is not None:
        coverage = {HELD_OUT: held_out_scores.coverage} | {name: one.coverage for name, one in outcome.scores.items()}
    folder.write_scores(step, decision, outcome.held_out, outcome.scores, coverage)
    return outcome


def compared(task: Task, held_out: Predicted, reported: Iterable[Predicted]) -> Rows:
    """The scores of several decisions, made on the held-out part, on it and every reported split that has labels."""
    known = for_tuning(held_out.split, held_out.logits, held_out.missing)
    decisions = side_by_side(*known, measure_of(task).tune)
    scored = [one for one in (held_out, *reported) if one.split.labels is not None]
    return {
        name: {
            one.split.name: score_answered(
                task, one.split.labels, decision(one.logits), one.missing, is_asked(one.logits)
            )
            for one in scored
        }
        for name, decision in decisions.items()
    }


def apply_decision(
    folder: RunFolder, decision: Decision, predicted: Iterable[Predicted]
) -> dict[str, TaskScores | None]:
    """Write the prediction files of each split; the scores of those that have labels, None for the others."""
    scores = {}
    for one in predicted:
        if one.record is not None:
            folder.write_record(one.split, one.record, one.generated)
        scores[one.split.name] = folder.write_predictions(one.split, one.logits, decision, one.missing)
    return scores


def held_out_metrics(
    config: Config, held_out: Split, logits: np.ndarray, hyper: LossHyperparameters, proposed: np.ndarray | None = None
) -> dict[str, float]:
    """What is followed while training: loss and main scores on the held-out part, decided as the config says.

    Scores are about what a shortlist `proposed`, the loss about all. A loss that is not finite comes alone: then there
    is nothing to decide.
    """
    loss = float(category_losses(config.loss.kind, logits, held_out.labels.astype(np.float32), hyper).mean())
    if not np.isfinite(loss):
        return {"loss": loss}
    logits = logits if proposed is None else np.where(proposed, logits, EXCLUDED)
    measure = measure_of(TASKS[config.data.task])
    decision = choose_thresholds(config.decision, held_out.labels, logits, measure.tune)
    result = measure.score(held_out.labels, decision(logits))
    middle = decision.thresholds.mean()
    return {
        "loss": loss,
        **result.headline,
        "threshold": float(sigmoid(middle)),
        "threshold_logit": float(middle),
    }


def scored_by(config: Config) -> str:
    """How open answers are scored, in words that end a sentence; nothing for other formulations."""
    form = config.formulation
    if form.kind == "label_list":
        return "; answers generated"
    return f"; answers scored by {form.scoring}" if form.kind == "open_answer" else ""
