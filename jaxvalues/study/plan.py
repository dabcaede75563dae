"""The plan of a study: its systems, and the config of every trial and run. Reads config files and computes nothing."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from jaxvalues.config import Config, parse_config
from jaxvalues.config.trees import flat, merge, read_tree
from jaxvalues.config.tuning import OWNERS
from jaxvalues.data.task import VALUES
from jaxvalues.errors import ConfigError, UserError, name_list, short
from jaxvalues.models import hub_name
from jaxvalues.study.schema import INIT, ORDER, Contrast, Study

TRIALS, RUNS, FEATURES = "trials", "runs", "features"
"""The folders of a study: runs that choose, which report nothing, runs that are compared, and what frozen layers give,
which runs share."""

_NOWHERE = {"data": {"dir": None}, "runtime": None}  # where things are, which decides nothing


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study. `coordinates` are its nuisance or repeated keys, which tell the runs of a system apart."""

    system: str
    kind: str
    """`TRIALS` or `RUNS`."""
    coordinates: Mapping[str, Any]
    config: Config

    @property
    def is_trial(self) -> bool:
        return self.kind == TRIALS

    @property
    def label(self) -> str:
        """What a person calls it: "lora, seed 1"."""
        return ", ".join([self.system, *in_words(self.coordinates)])


@dataclass(frozen=True)
class PlannedSystem:
    """A system and the settings that make it one."""

    name: str
    changes: Mapping[str, Any]
    """{config key: value}."""
    tree: dict[str, Any]
    """The settings of its runs, but for nuisance and repeated keys."""


@dataclass(frozen=True)
class Plan:
    """A study with the settings of its systems."""

    study: Study
    systems: dict[str, PlannedSystem]
    contrasts: tuple[Contrast, ...]
    held_out: str | None
    """In a replication: the reported split on which is chosen. It is read from the held-out predictions."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that is compared: systems that train, then those that combine their runs."""
        return (*self.systems, *self.study.scientific.combined)

    def repeated(self, name: str) -> dict[str, Any]:
        """{repeated key: values} of a system. One that combines the runs over a key does not have that key."""
        how = self.study.scientific.combined.get(name)
        return {key: values for key, values in self.study.repeated.items() if how is None or key != how.over}

    def ranges(self, system: str, added: Mapping[str, Mapping[str, tuple[Any, ...]]] | None = None) -> dict[str, Any]:
        """{nuisance key: values to try} of a system, with those that were `added` to its ranges."""
        more = (added or {}).get(system, {})
        return {key: (*values, *more.get(key, ())) for key, values in self.study.nuisance.of(system).items()}

    def trials(self, system: str, added: Mapping[str, Mapping[str, tuple[Any, ...]]] | None = None) -> list[PlannedRun]:
        """The trials of a system; none in a study without nuisance keys."""
        ranges = self.ranges(system, added)
        if not ranges:
            return []
        seed = {"seed": self.study.nuisance.seed}
        return [self._run(system, TRIALS, values, {**seed, **values}) for values in combinations(ranges)]

    def runs(self, system: str, chosen: Mapping[str, Any]) -> list[PlannedRun]:
        """The runs of a system with the nuisance values `chosen` for it."""
        return [self.run(system, chosen, repeated) for repeated in combinations(self.study.repeated)]

    def run(self, system: str, chosen: Mapping[str, Any], repeated: Mapping[str, Any]) -> PlannedRun:
        """One run of a system."""
        return self._run(system, RUNS, repeated, {**chosen, **repeated})

    def first(self, system: str) -> Config:
        """The config of some run of a system, to learn its sizes from."""
        return self.runs(system, self.first_values(system))[0].config

    def first_values(self, system: str) -> dict[str, Any]:
        """The first value of every nuisance key."""
        return {key: values[0] for key, values in self.ranges(system).items()}

    def resized(self, system: str, changes: Mapping[str, Any]) -> Plan:
        """The plan with further changes to one system."""
        one = self.systems[system]
        changed = PlannedSystem(one.name, {**one.changes, **changes}, merge(one.tree, nested(changes)))
        return Plan(self.study, {**self.systems, system: changed}, self.contrasts, self.held_out)

    @property
    def replication(self) -> str | None:
        """In a replication: what is chosen on the reported split."""
        if self.held_out is None:
            return None
        *others, last = ("steps", "thresholds", *self.study.nuisance.keys)
        return (
            f"A replication: {', '.join(others)} and {last} are chosen on {self.held_out}, which is reported too, so "
            "its figures are optimistic."
        )

    def digest(self) -> str:
        """A short hash of the study and the settings of its systems, whatever decides its numbers."""
        elsewhere = {"output", "base", "changes", "scientific", "keep_features", "together"}
        study = self.study.model_dump(mode="json", exclude=elsewhere)
        systems = {name: _wherever(one.tree) for name, one in self.systems.items()}
        systems |= {name: one.model_dump(mode="json") for name, one in self.study.scientific.combined.items()}
        return hashlib.sha256(json.dumps([study, systems], sort_keys=True).encode()).hexdigest()[:12]

    def _run(self, system: str, kind: str, coordinates: Mapping[str, Any], settings: Mapping[str, Any]) -> PlannedRun:
        tree = merge(self.systems[system].tree, nested(settings))
        report = [] if kind == TRIALS else [split for split in self.study.report if split != self.held_out]
        tree = merge(tree, {"name": file_name(system), "data": {"report": report}})
        tree = merge({"runtime": {"features": str(self.study.folder / FEATURES)}}, tree)
        config = parse_config(tree, f"the study's system {system}").explicit()
        # The hash lets a changed study run anew and leaves what was finished before.
        folder = self.study.folder / kind / file_name(system)
        folder /= "_".join([*map(file_name, in_words(coordinates)), config.fingerprint()[:6]])
        return PlannedRun(system, kind, coordinates, config.model_copy(update={"output": str(folder)}))


def make_plan(study: Study) -> Plan:
    """The plan of a study. Raises ConfigError with one sentence for what cannot be compared."""
    systems = {name: _system(study, name, changes) for name, changes in _systems(study).items()}
    if not systems:
        raise ConfigError("scientific.exclude leaves out every combination of the axes, so there is nothing to compare")
    _check_combined(study, systems)
    contrasts = _contrasts(study, (*systems, *study.scientific.combined))
    bases = {
        name: parse_config(merge(one.tree, {"data": {"report": []}}), f"the study's system {name}")
        for name, one in systems.items()
    }
    for name, config in bases.items():
        if config.is_ensemble:
            raise ConfigError(f"the study's system {name} is an ensemble, but a study compares single runs")
        if config.runtime.distributed:
            raise ConfigError("runtime.distributed: a study trains each run in one process; --part shares a study")
        if config.data.task != VALUES.name:
            raise ConfigError(f"the study's system {name} has data.task {config.data.task}, but values are compared")
    _check_changes(study, systems)
    plan = Plan(study, systems, contrasts, _reported_choice(study, bases))
    check_apart(plan)
    names = [file_name(name) for name in plan.names]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"two systems have the folder {twice}: give them names that differ in letters or digits")
    return plan


def _check_changes(study: Study, systems: Mapping[str, PlannedSystem]) -> None:
    """Raise ConfigError for a change to all systems that changes none of them."""
    changes = flat(study.changes)
    if "data.report" in changes:
        raise ConfigError("`data.report` belongs to the study: give report=[SPLIT, ...]")
    own = [flat(system.changes) for system in systems.values()]
    settings = [flat(system.tree) for system in systems.values()]
    for key, value in changes.items():
        if key in study.scientific.axes:
            part = "scientific.axes sets it"
        elif all(key in each for each in own):
            part = "each of them sets it"
        elif any(key in each and each[key] == value for each in settings):
            continue
        else:
            part = "those that have it set it themselves"
        raise ConfigError(f"`{key}` is changed for all systems, but {part}: change it there")


def check_apart(plan: Plan) -> None:
    """Raise ConfigError for two systems of the same settings."""
    fingerprints: dict[str, str] = {}
    for name in plan.systems:
        config = plan.first(name)  # every key is known
        same = config.model_copy(update={"name": "", "output": "x"}).fingerprint() + str(config.model.path)
        if other := fingerprints.get(same):
            raise ConfigError(f"the systems {other} and {name} have the same settings: change one, or remove it")
        fingerprints[same] = name


def combinations(axes: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Every combination of some axes, the last key the fastest."""
    for values in product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def in_words(coordinates: Mapping[str, Any]) -> list[str]:
    """What a person calls the values of some keys: "seed 1", "learning_rate 0.001"."""
    return [f"{key.rpartition('.')[2]} {_value(value)}" for key, value in coordinates.items()]


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"tuning.method": "lora"} as {"tuning": {"method": "lora"}}."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        branch = value
        for part in reversed(key.split(".")):
            branch = {part: branch}
        tree = merge(tree, branch)
    return tree


def nested_changes(config: Config, settings: Mapping[str, Any]) -> Config:
    """A config with further settings, {dotted key: value}. Raises ConfigError for those that do not fit."""
    return parse_config(merge(config.model_dump(mode="json"), nested(settings)), "the study's budget")


def _wherever(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a system without where things are. A name on the hub is no place, but what the weights are."""
    path = tree.get("model", {}).get("path")
    name = hub_name(path) if isinstance(path, str) else None
    return merge(merge(tree, _NOWHERE), {"model": {"path": name}})


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def file_name(text: str) -> str:
    """A text as a part of a path: letters, digits and . _ + -"""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "-"


def _systems(study: Study) -> dict[str, dict[str, Any]]:
    """{name: changes} of a study."""
    if study.scientific.systems:
        return study.scientific.systems
    kept = [
        one
        for one in combinations(study.scientific.axes)
        if not any(excluded.items() <= one.items() for excluded in study.scientific.exclude)
    ]
    named = {" ".join(map(_value, one.values())): one for one in kept}
    if len(named) < len(kept):
        raise ConfigError(
            "scientific.axes: two systems have the same name: write their values so that the names differ"
        )
    return named


def _system(study: Study, name: str, changes: Mapping[str, Any]) -> PlannedSystem:
    """A system with its settings."""
    if not name.strip() or not name.isprintable():
        raise ConfigError(f"a system has the name {short(name)}, expected a word or a few")
    base = changes.get("base", study.base)
    if not isinstance(base, str):
        raise ConfigError(f"the system {name} has no config to start from: give `base`, for the study or for it")
    own = {key: value for key, value in changes.items() if key != "base"}
    for key in sorted({key.partition(".")[0] for key in own} & {"name", "seed", "output", "ensemble", "runtime"}):
        raise ConfigError(f"the system {name} cannot set `{key}`, which belongs to the whole study")
    for key in sorted({*flat(study.changes), *flat(own)} & {*study.nuisance.keys, *study.repeated}):
        part = "repeated" if key in study.repeated else "nuisance.keys"
        raise ConfigError(f"`{key}` is set for {name}, but {part} sets it for every run: change {part}.{key}")
    try:
        tree = read_tree(Path(base))
    except UserError as error:
        raise ConfigError(str(error)) from None
    tree, settings = merge(tree, nested(study.changes)), nested(own)
    tuning = settings.get("tuning")
    if isinstance(tuning, dict) and "method" in tuning and isinstance(tree.get("tuning"), dict):
        tree["tuning"] = _of_method(tree["tuning"], tuning["method"])
    return PlannedSystem(name, own, merge(tree, settings))


def _of_method(tuning: dict[str, Any], method: Any) -> dict[str, Any]:
    """The settings of the base that another tuning method has too: a prompt has no rank."""
    return {key: value for key, value in tuning.items() if method in OWNERS.get(key, (method,))}


def _check_combined(study: Study, systems: Mapping[str, PlannedSystem]) -> None:
    """Raise ConfigError for a combined system whose members cannot be had."""
    drawn = f"{INIT}, {ORDER}"
    for name, how in study.scientific.combined.items():
        if name in systems:
            raise ConfigError(f"scientific.combined: {name} is the name of a system too")
        if how.of not in systems:
            raise ConfigError(
                f"scientific.combined: {name} is of {short(how.of)}, which is no system that trains "
                f"({name_list(systems)})"
            )
        if how.over in (INIT, ORDER):
            continue
        values = study.repeated.get(how.over, ())
        if len(values) < 2:
            raise ConfigError(
                f"scientific.combined: {name} is over {short(how.over)}, expected {drawn} or a repeated key with two "
                f"values or more ({name_list(study.repeated)})"
            )
        if math.prod(len(others) for key, others in study.repeated.items() if key != how.over) < 2:
            raise ConfigError(
                f"scientific.combined: {name} is over {how.over} and nothing else is repeated, so that it would have "
                f"one run and no spread; repeat another key too, or combine over {INIT} or {ORDER}"
            )


def _contrasts(study: Study, systems: Sequence[str]) -> tuple[Contrast, ...]:
    """The differences that are tested. Raises ConfigError where there are none, or one of unknown systems."""
    known = name_list(systems)
    baseline = systems[0] if study.baseline is None else study.baseline
    if baseline not in systems:
        raise ConfigError(f"baseline is {short(baseline)}, which is no system of the study ({known})")
    for name in study.nuisance.per_system:
        if name not in systems or name in study.scientific.combined:
            raise ConfigError(f"nuisance.per_system names {short(name)}, which is no system of the study ({known})")
    contrasts = study.contrasts
    if contrasts is None:
        contrasts = tuple(Contrast(a=name, b=baseline) for name in systems if name != baseline)
    if not contrasts:
        raise ConfigError("the study has no contrast: it needs two systems, or contrasts of them")
    pairs = [frozenset((one.a, one.b)) for one in contrasts]
    for one, pair in zip(contrasts, pairs, strict=True):
        for name in (one.a, one.b):
            if name not in systems:
                raise ConfigError(f"a contrast names {short(name)}, which is no system of the study ({known})")
        if pairs.count(pair) > 1:
            raise ConfigError(f"the contrast of {one.a} and {one.b} is there twice")
    return contrasts


def _reported_choice(study: Study, configs: Mapping[str, Config]) -> str | None:
    """The reported split on which steps, thresholds and nuisance keys are chosen; None where there is none.

    Raises ConfigError where there is one and the study is no replication.
    """
    chosen_on = {config.data.held_out for config in configs.values() if isinstance(config.data.held_out, str)}
    reported = sorted(chosen_on & set(study.report))
    if not reported:
        return None
    if not study.replicate:
        raise ConfigError(
            f"data.held_out is {reported[0]}, which the study reports: what is chosen on a split looks too good there; "
            "hold out other arguments, or set replicate: true"
        )
    if len(chosen_on) > 1 or any(not isinstance(config.data.held_out, str) for config in configs.values()):
        raise ConfigError("replicate: the systems choose on different arguments, and they must choose on the same")
    return reported[0]
