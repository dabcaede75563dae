"""What is made of the members of a combined run: mean probabilities, mean weights, or the best one's name.

A combination of predictions or weights is a finished run in its own folder. The choice of a member is a file there,
which names the folder of the member.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import jax
from rich.console import Console

from jaxvalues.config.reading import entry, read_json
from jaxvalues.config.writing import write_json, writing
from jaxvalues.data.held_out import load_parts
from jaxvalues.ensemble import combine_runs
from jaxvalues.errors import UserError, counted
from jaxvalues.run.console import RunConsole
from jaxvalues.run.estimate import epoch_size
from jaxvalues.run.folder import RunFolder, RunRecord
from jaxvalues.run.outcome import finish
from jaxvalues.run.predict import restore
from jaxvalues.run.prediction import encode, predict_split
from jaxvalues.run.system import Weights
from jaxvalues.study.combined import PlannedCombination, Round, pause_step, rounds_of
from jaxvalues.study.measured import read_measured, together, write_measured
from jaxvalues.study.plan import PlannedRun
from jaxvalues.training.compilation import Programs
from jaxvalues.training.metrics import read_metrics
from jaxvalues.training.sharding import make_mesh

CHOICE = "choice.json"
"""In the folder of a run of a combined system that chooses: the chosen member, and the scores of every round."""


def result_folder(one: PlannedCombination) -> Path | None:
    """The folder with the predictions of a combined run; None while it is not finished."""
    folder, file = one.folder, one.folder / CHOICE
    if one.how.combine == "halving":
        if not file.is_file():
            return None
        folder /= entry(read_json(file, "the chosen member of a run of a study"), "chosen", str, file)
    return folder if RunFolder(folder).is_finished else None


def combine_members(one: PlannedCombination, programs: Programs, console: Console) -> None:
    """Combine the finished members of a run by mean probability or mean weights. What is said goes to `console`.

    Raises UserError for members that cannot be combined.
    """
    with writing(one.folder):
        if one.folder.exists():  # of an attempt that was interrupted
            shutil.rmtree(one.folder)
        one.folder.parent.mkdir(parents=True, exist_ok=True)
    if one.how.combine == "mean":
        combine_runs([member.config.folder for member in one.members], one.folder, console=console)
    else:
        _average_weights(one, programs, RunConsole(console, brief=True))
    write_measured(one.folder, together([read_measured(member.config.folder) for member in one.members]))


def _average_weights(one: PlannedCombination, programs: Programs, run_console: RunConsole) -> None:
    """Write a finished run whose trained parameters are the mean of the members', each of its own best step.

    The mean of weights that were tuned from one start is a model soup (Wortsman et al., 2022).
    """
    folders = [RunFolder.finished(member.config.folder) for member in one.members]
    first, config = folders[0], folders[0].config()
    system, weights = restore(first, config, make_mesh(config.mesh), programs)
    trained = [folder.restore_chosen(system) for folder in folders]
    mean = jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]) / len(leaves), *(tree for tree, _ in trained))
    step, weights = max(step for _, step in trained), Weights(weights.frozen, mean)

    target = RunFolder(one.folder)
    environment = first.environment() | {"mean_of": [os.path.relpath(each.path, one.folder) for each in folders]}
    record = RunRecord(environment, first.hf_config(), first.tokenizer(), system.texts)
    target.create(config.model_copy(update={"output": str(one.folder)}), record)
    with closing(target.chosen()) as chosen:
        chosen.save(step, mean, system.segments, {"best_step": step})
    parts = load_parts(config.data)
    predicted = (
        predict_split(system, weights, split, encode(system, split, run_console))
        for split in (parts.held_out, *parts.reported)
    )
    how = f"{{}}, of the mean weights of {counted(len(folders), 'run')}"
    finish(target, config.decision, next(predicted), predicted, how=how)


class Halving:
    """Successive halving of the members of one run (Jamieson & Talwalkar, 2016): `next_round`, train, `drop`, …

    Scores are the study's `metric` on held-out arguments after the step where a round pauses: the best so far, or the
    last one where training keeps the last step.
    """

    def __init__(self, one: PlannedCombination, metric: str) -> None:
        self.one, self.metric, self.left = one, metric, one.members
        self.scores: list[dict[str, float]] = []
        config = one.members[0].config
        self.epoch = epoch_size(config, load_parts(config.data)).steps

    @property
    def rounds(self) -> list[Round]:
        return rounds_of(len(self.one.members))

    def pause_at(self, one: Round) -> int | None:
        """The step after which a round ends; None for the last."""
        return None if one.share == 1 else pause_step(self.one.members[0].config, one.share, self.epoch)

    def drop(self, step: int) -> None:
        """Leave the better half of the members, by their scores after `step`; of equal ones the first."""
        scores = [score_after(member, step, self.metric) for member in self.left]
        self.scores.append({member.label: score for member, score in zip(self.left, scores, strict=True)})
        ranked = sorted(range(len(scores)), key=lambda number: (-scores[number], number))
        self.left = tuple(self.left[number] for number in sorted(ranked[: (len(scores) + 1) // 2]))

    def write(self) -> Path:
        """Write the choice, once one member is left and finished. Returns its folder."""
        (winner,) = self.left
        with writing(self.one.folder):
            self.one.folder.mkdir(parents=True, exist_ok=True)
        write_measured(self.one.folder, together([read_measured(one.config.folder) for one in self.one.members]))
        shares = [one.share for one in self.rounds]
        rounds = [
            {"trained_share": share, "scores": scores} for share, scores in zip(shares, self.scores, strict=False)
        ]
        chosen = os.path.relpath(winner.config.folder, self.one.folder)
        write_json(self.one.folder / CHOICE, {"chosen": chosen, "rounds": rounds})
        return winner.config.folder


def has_reached(one: PlannedRun, step: int | None) -> bool:
    """Whether a run is finished, or was evaluated at a step or later."""
    if RunFolder(one.config.folder).is_finished:
        return True
    return step is not None and any(at >= step for at, _ in _evaluations(one, "loss"))


def score_after(one: PlannedRun, step: int, metric: str) -> float:
    """A held-out figure of a run after its first evaluation at `step` or later. Raises UserError without one."""
    until: list[float] = []
    for at, score in _evaluations(one, metric):
        until.append(score)
        if at >= step:
            break
    if not until:
        raise UserError(f"{one.config.folder}: metrics.jsonl has no held-out score, expected one after step {step}")
    return until[-1] if one.config.training.keep == "last" else max(until)


def _evaluations(one: PlannedRun, metric: str) -> Sequence[tuple[int, float]]:
    """(step, held-out figure) of every evaluation so far; -inf where the loss was not finite."""
    file = one.config.folder / "metrics.jsonl"
    lines = (values for _, values in read_metrics(file))
    return [(values["step"], values.get(metric, -math.inf)) for values in lines if values.get("kind") == "held_out"]
