"""The choice of nuisance keys: the best trial on held-out arguments, and ranges that are too narrow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxvalues.errors import ConfigError
from jaxvalues.run.folder import RunFolder
from jaxvalues.study.failures import has_diverged
from jaxvalues.study.plan import Plan, PlannedRun
from jaxvalues.study.results import Trial

MOST_EXTENSIONS = 2
"""How often the ranges of nuisance keys are extended."""

Added = dict[str, dict[str, tuple[Any, ...]]]
"""{system: {nuisance key: values that were added to its range}}."""


def finished_trials(plan: Plan, system: str, added: Added | None = None) -> list[Trial]:
    """The trials of a system that are finished, with the study's figure of the held-out part.

    `added` are the values that the study adds to ranges; None: looked up.
    """
    return _scored(plan.trials(system, extended(plan) if added is None else added), plan.study.metric)


def _scored(trials: Sequence[PlannedRun], metric: str) -> list[Trial]:
    """The finished ones of some trials, with their held-out figure."""
    found = []
    for one in trials:
        folder = RunFolder(one.config.folder)
        if folder.is_finished:
            found.append(Trial(one.coordinates, float(folder.held_out_scores().headline[metric])))
    return found


def choose(plan: Plan, system: str, added: Added | None = None) -> Mapping[str, Any] | None:
    """The values of a system's best trial, {} where there are no nuisance keys; None while a trial is not finished.

    Of equal trials the first is chosen. One whose loss is not finite is worse than all others; None where all are so.
    `added` is that of `finished_trials`.
    """
    trials = plan.trials(system, extended(plan) if added is None else added)
    if not trials:
        return {}
    done = _scored(trials, plan.study.metric)
    if not done or len(done) + sum(has_diverged(one.config.folder) for one in trials) < len(trials):
        return None
    return max(done, key=lambda trial: trial.figure).values


def edges(ranges: Mapping[str, tuple[Any, ...]], chosen: Mapping[str, Any]) -> dict[str, str]:
    """{nuisance key: "lowest" or "highest"} of numbers that lie on the edge of their range of two or more."""
    found = {}
    for key, values in ranges.items():
        if len(values) < 2 or not all(is_number(value) for value in values) or key not in chosen:
            continue
        if chosen[key] in (min(values), max(values)):
            found[key] = "lowest" if chosen[key] == min(values) else "highest"
    return found


def beyond(plan: Plan, chosen: Mapping[str, Mapping[str, Any]], added: Added) -> Added:
    """`added` with one more value of each key that some system has on its edge, for all systems on that side.

    The step is that of the range's last two values, as a factor where these are positive. No value is added that a
    system cannot have, such as a rate of dropout below 0, or has already. {} where nothing is added.
    """
    sides: dict[str, set[str]] = {}
    for system in plan.systems:
        for key, side in edges(plan.ranges(system, added), chosen[system]).items():
            sides.setdefault(key, set()).add(side)
    before: Added = {system: added.get(system, {}) for system in plan.systems}
    further = {system: dict(own) for system, own in before.items()}
    for key, side in sorted((key, side) for key, found in sides.items() for side in found):
        new = {system: _next(plan.ranges(system, added)[key], side) for system in plan.systems}
        if all(_is_new(plan, system, key, value, further) for system, value in new.items()):
            for system, value in new.items():
                further[system][key] = (*further[system].get(key, ()), value)
    return further if further != before else {}


def extended(plan: Plan) -> Added:
    """The values that a study adds to ranges, as far as its trials are finished: `MOST_EXTENSIONS` times at most."""
    added: Added = {}
    for _ in range(MOST_EXTENSIONS if plan.study.nuisance.extend else 0):
        chosen = {system: choose(plan, system, added) for system in plan.systems}
        if None in chosen.values() or not (further := beyond(plan, chosen, added)):
            break
        added = further
    return added


def _is_new(plan: Plan, system: str, key: str, value: Any, added: Added) -> bool:
    """Whether a system can have a value of a key, and has no such trial yet."""
    if value in plan.ranges(system, added)[key]:
        return False
    try:
        plan.trials(system, {system: {**added[system], key: (*added[system].get(key, ()), value)}})
    except ConfigError:
        return False
    return True


def _next(values: tuple[Any, ...], side: str) -> Any:
    ordered = sorted(values, reverse=side == "lowest")
    before, last = ordered[-2:]
    if isinstance(last, int) and isinstance(before, int):
        return last + (last - before) if side == "highest" else max(1, last // 2)
    new = last * last / before if before > 0 and last > 0 else last + (last - before)
    return float(f"{new:.3g}") if math.isfinite(new) else last


def is_number(value: Any) -> bool:
    """Whether a value of a nuisance key is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
