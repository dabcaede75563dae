"""The schema of a study file: the question, what is compared, what is chosen for each system, and what is repeated.

The words are those of the Deep Learning Tuning Playbook (Godbole et al., 2023): *scientific* keys are compared,
*nuisance* keys are chosen for each system by the same number of trials, on held-out arguments. *Repeated* keys are
random: a claim is meant for new values of them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from jaxvalues.config.reading import user_path
from jaxvalues.config.section import URL_REFUSED, Name, Section, Text, check_placeholders, is_url

INIT, ORDER = "init", "order"
"""What members of a combined system may differ in, besides a repeated key."""

Values = Annotated[tuple[Any, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]


class Combined(Section):
    """A system that is made of several runs of another one."""

    of: Text
    """The system whose runs are its members."""
    over: Text
    """What members of one run differ in. `init`: the initial values of new weights, drawn anew for every member.
    `order`: the order of the data and dropout, from one initial value. Or a repeated key: its values are the
    members."""
    members: int | None = Field(None, ge=2, le=64)
    """init, order: the number of members of every run."""
    combine: Literal["mean", "weights", "halving"] = "mean"
    """`mean`: the mean probability. `weights`: the mean of the trained weights, which predicts once (Wortsman et al.
    2022); needs `over: order`. `halving`: the best member on held-out arguments; all train for a short part, the better
    half goes on, and so on (Jamieson & Talwalkar 2016)."""

    @model_validator(mode="after")
    def _members_are_known(self) -> Combined:
        drawn = self.over in (INIT, ORDER)
        if drawn != (self.members is not None):
            raise ValueError(
                f"`members` belongs to `over: {INIT}` and `over: {ORDER}`, and these need it; the members over a "
                "repeated key are its values"
            )
        if self.combine == "weights" and self.over != ORDER:
            raise ValueError(
                f"`combine: weights` needs `over: {ORDER}`, not {self.over}: only weights that began as the same can "
                "be averaged"
            )
        return self


class Scientific(Section):
    """What is compared: named systems, or every combination of some axes, and systems that are made of these."""

    systems: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """{name: {config key: value}}: what makes each system, in place of `axes`. `base` gives it another config file."""
    axes: dict[str, Values] = Field(default_factory=dict)
    """{config key: values}: every combination is a system, in place of `systems`."""
    exclude: tuple[dict[str, Any], ...] = ()
    """Combinations of `axes` that are left out: those with all of these values."""
    combined: dict[str, Combined] = Field(default_factory=dict)
    """{name: how}: systems that combine runs of another one, such as ensembles of prompts."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Scientific:
        if bool(self.systems) == bool(self.axes):
            raise ValueError("give either `systems` or `axes`")
        if self.exclude and not self.axes:
            raise ValueError("`exclude` leaves combinations of `axes` out, and there are none")
        for key, values in self.axes.items():
            _check_values(key, values)
        for one in self.exclude:
            if unknown := sorted(one.keys() - self.axes.keys()):
                raise ValueError(f"`exclude` names `{unknown[0]}`, which is no axis ({', '.join(self.axes)})")
        return self


class Nuisance(Section):
    """What is chosen for each system on held-out arguments, by the same number of trials."""

    keys: dict[str, Values] = Field(default_factory=dict)
    """{config key: values to try}. Every combination is a trial."""
    per_system: dict[str, dict[str, Values]] = Field(default_factory=dict)
    """{system: {config key: values}}: a range of its own, with as many values as in `keys`."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the trials."""
    extend: bool = False
    """Whether a range of numbers whose best value lies on its edge gets one more value there, for all systems."""

    @model_validator(mode="after")
    def _equal_numbers(self) -> Nuisance:
        for key, values in self.keys.items():
            _check_values(key, values)
        for system, own in self.per_system.items():
            for key, values in own.items():
                _check_values(f"{system}: {key}", values)
                if key not in self.keys:
                    raise ValueError(f"per_system: {system} tries `{key}`, which `keys` does not name")
                if len(values) != len(self.keys[key]):
                    raise ValueError(
                        f"per_system: {system} tries {len(values)} values of {key} and others {len(self.keys[key])}; "
                        "every system has the same number of trials"
                    )
        return self

    def of(self, system: str) -> dict[str, Values]:
        """{config key: values to try} of a system."""
        return {key: self.per_system.get(system, {}).get(key, values) for key, values in self.keys.items()}

    @property
    def trials(self) -> int:
        """The number of trials of every system."""
        return math.prod(map(len, self.keys.values())) if self.keys else 0


class Contrast(Section):
    """A difference a - b that the study asks for."""

    a: Text
    """A system."""
    b: Text
    """The system whose figure is taken from that of `a`."""

    @model_validator(mode="after")
    def _two(self) -> Contrast:
        if self.a == self.b:
            raise ValueError(f"a contrast of {self.a} with itself")
        return self


class Budget(Section):
    """Equal budgets: the size of each method is chosen to come closest."""

    trainable_parameters: int | None = Field(None, ge=1)
    """LoRA's rank, the length of a prompt or prefix, or the number of last layers follows from it. Heads count."""
    training_flops: float | None = Field(None, gt=0)
    """The number of epochs follows from it, at least 1."""

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if self.trainable_parameters is None and self.training_flops is None:
            raise ValueError("give `trainable_parameters`, `training_flops` or both")
        return self


class Study(Section):
    """A whole study file."""

    all_keys = "`jaxvalues schema --study --markdown`"

    name: Name = "study"
    """Name of the study. Default: the name of the file, without `.yaml`."""
    question: Text
    """The question that it answers, in one sentence."""
    base: Text | None = None
    """The config file that systems start from, relative to the study file. Each may name its own instead."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """{config key: value}: changes to the base of all systems."""
    scientific: Scientific
    nuisance: Nuisance = Nuisance()
    repeated: dict[str, Values] = Field(default_factory=lambda: {"seed": (0, 1, 2)})
    """{config key: values}: `seed`, and other random choices such as a prompt's initial vectors or template. Default:
    `seed: [0, 1, 2]`."""
    contrasts: tuple[Contrast, ...] | None = None
    """The differences that are tested. null: every system less `baseline`."""
    baseline: Text | None = None
    """The system that others are compared with. null: the first."""
    metric: Literal["official_f1", "mean_category_f1"] = "official_f1"
    """The primary figure; the other one is printed beside it."""
    report: tuple[Text, ...] = ("validation", "test")
    """Splits that are reported once, at the end."""
    budget: Budget | None = None
    keep_features: bool = False
    """Keep what the study computed once of frozen layers (its folder `features`) when it is finished."""
    replicate: bool = False
    """Allow what the study of 2024 did: to choose on a split that is reported. The report says so."""
    together: Literal["auto", False] | Annotated[int, Field(strict=True, ge=1)] = "auto"
    """How many trials or runs of a system train at once, where they differ in seed or traced numbers alone and what
    trains is small: as many as memory allows (`auto`), at most so many, or one by one (false). The numbers are the
    same."""
    output: Text = "studies/{name}"
    """Folder of the study; `{name}` is filled in."""

    @model_validator(mode="after")
    def _fits_together(self) -> Study:
        if is_url(self.output):
            raise ValueError(f"output: {URL_REFUSED}, not {self.output}")
        check_placeholders(self.output, "{name}")
        if not self.report:
            raise ValueError("`report` names no split, so that nothing can be compared")
        if len(set(self.report)) < len(self.report):
            raise ValueError("`report` names a split twice")
        if not self.repeated:
            raise ValueError("`repeated` names nothing; give at least seed: [0]")
        for key, values in self.repeated.items():
            _check_values(f"repeated: {key}", values)
        axes, nuisance = self.scientific.axes, self.nuisance.keys
        seen: dict[str, str] = {}
        for kind, keys in {"scientific.axes": axes, "nuisance.keys": nuisance, "repeated": self.repeated}.items():
            for key in keys:
                if key in seen:
                    raise ValueError(f"`{key}` is in {seen[key]} and in {kind}: it may be in one of them only")
                seen[key] = kind
        if "seed" in seen and seen["seed"] != "repeated":
            raise ValueError(f"`seed` is in {seen['seed']}, but seeds are random choices: it belongs to repeated")
        return self

    @property
    def folder(self) -> Path:
        """The folder of the study."""
        return user_path(self.output.replace("{name}", self.name))


def _plain(value: Any) -> Any:
    """A whole number as the integer it is: 2 and 2.0 are the same value."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_values(key: str, values: Values) -> None:
    """Raise ValueError for no values, and for one that is there twice."""
    if not values:
        raise ValueError(f"{key} has no values")
    texts = [json.dumps(_plain(value), sort_keys=True, default=str) for value in values]
    if twice := next((text for text in texts if texts.count(text) > 1), None):
        raise ValueError(f"{key} has the value {twice} twice")
