"""Systems that combine runs of another one: which runs are their members, and what the members compute in all."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxvalues.config import Config
from jaxvalues.errors import ConfigError, counted
from jaxvalues.run.folder import RunFolder
from jaxvalues.study.plan import RUNS, Plan, PlannedRun, combinations, file_name, in_words
from jaxvalues.study.schema import INIT, ORDER, Combined

STEP = 100_000
"""Between the seeds of the members of one run, so that no two runs share a member."""


@dataclass(frozen=True)
class PlannedCombination:
    """A run of a combined system: its members, and the folder of what is made of them."""

    system: str
    how: Combined
    coordinates: Mapping[str, Any]
    """{repeated key: value}."""
    members: tuple[PlannedRun, ...]
    folder: Path

    @property
    def label(self) -> str:
        return ", ".join([self.system, *in_words(self.coordinates)])

    @property
    def finished_members(self) -> int:
        return sum(RunFolder(one.config.folder).is_finished for one in self.members)


def combined_runs(plan: Plan, name: str, chosen: Mapping[str, Any]) -> list[PlannedCombination]:
    """The runs of a combined system, whose members have the nuisance values `chosen` for their system."""
    how, found = plan.study.scientific.combined[name], []
    for repeated in combinations(plan.repeated(name)):
        members = tuple(plan.run(how.of, chosen, one) for one in _members(plan, how, chosen, repeated))
        decides = [how.combine, [one.config.fingerprint() for one in members]]
        digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:6]
        place = "_".join([*map(file_name, in_words(repeated)), digest])
        folder = plan.study.folder / RUNS / file_name(name) / place
        found.append(PlannedCombination(name, how, repeated, members, folder))
    return found


def _members(
    plan: Plan, how: Combined, chosen: Mapping[str, Any], repeated: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """The coordinates of every member; the first is the system's own run, where members are drawn."""
    if how.members is None:
        values = plan.study.repeated[how.over]
        return [{key: {**repeated, how.over: value}[key] for key in plan.study.repeated} for value in values]
    first = plan.run(how.of, chosen, repeated).config
    others: list[Mapping[str, Any]] = []
    for number in range(1, how.members):
        if how.over == INIT:
            others.append({**repeated, "init_seed": _other(first.start_seed, number)})
        else:
            others.append({**repeated, "seed": _other(first.seed, number), "init_seed": first.start_seed})
    return [repeated, *others]


def _other(seed: int, number: int) -> int:
    return (seed + STEP * number) % 2**32


class Round(NamedTuple):
    """A round of successive halving: how many members train, up to which share of all steps."""

    members: int
    share: float


def rounds_of(members: int) -> list[Round]:
    """The rounds of successive halving: 4 members train to a quarter, 2 to the half, and 1 to the end."""
    selections = math.ceil(math.log2(members))
    left, rounds = members, []
    for number in range(selections + 1):
        rounds.append(Round(left, 2.0 ** (number - selections)))
        left = math.ceil(left / 2)
    return rounds


def runs_worth(how: Combined, members: int) -> float:
    """What all members compute, in runs of their system."""
    if how.combine != "halving":
        return float(members)
    before, total = 0.0, 0.0
    for one in rounds_of(members):
        total += one.members * (one.share - before)
        before = one.share
    return total


def member_count(plan: Plan, name: str) -> int:
    """The number of members of each run of a combined system."""
    how = plan.study.scientific.combined[name]
    return len(plan.study.repeated[how.over]) if how.members is None else how.members


def in_a_sentence(plan: Plan, name: str) -> str:
    """What a run of a combined system is made of, and what that computes."""
    how, members = plan.study.scientific.combined[name], member_count(plan, name)
    over = {INIT: "initial values", ORDER: "orders of the data"}.get(how.over, f"values of {how.over}")
    worth = f"it computes as much as {runs_worth(how, members):g} runs of {how.of}"
    if how.combine != "halving":
        what = {"mean": "the mean probability", "weights": "the mean of the weights"}[how.combine]
        return f"{name}: {what} of {counted(members, 'run')} of {how.of} with other {over}; {worth}."
    first, *others = rounds_of(members)
    later = ", ".join(f"the best {one.members} to {one.share:.3g} of them" for one in others[:-1])
    later = f"{later}, and the best one to the end" if later else "the better one to the end"
    return (
        f"{name}: the best of {members} {over} of {how.of} on held-out arguments; {first.members} train to "
        f"{first.share:.3g} of all steps, {later}; {worth}."
    )


def check_rounds(plan: Plan) -> None:
    """Raise ConfigError where a system cannot be chosen after the share of its steps that successive halving takes."""
    for name, how in plan.study.scientific.combined.items():
        if how.combine != "halving":
            continue
        training, parts = plan.first(how.of).training, round(1 / rounds_of(member_count(plan, name))[0].share)
        if training.evaluate_every == "epoch" and training.epochs % parts:
            raise ConfigError(
                f"{name} chooses after 1/{parts} of the training of {how.of}, where no evaluation takes place: set "
                f"training.epochs to a multiple of {parts}, not {training.epochs}, or training.evaluate_every to steps"
            )


def pause_step(config: Config, share: float, steps_per_epoch: int) -> int:
    """The step that is a share of all steps of a run."""
    return math.ceil((config.loss.pretraining_epochs + config.training.epochs) * steps_per_epoch * share)
