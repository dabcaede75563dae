"""The schema of a study file: the question, what is compared, what is chosen for each system, and what is repeated.

The words are those of the Deep Learning Tuning Playbook (Godbole et al., 2023): *scientific* keys are compared,
*nuisance* keys are chosen for each system by the same number of trials, on held-out arguments. *Repeated* keys are
random: a claim is meant for new values of them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from jaxvalues.config.section import Name, Section, Text


class Scientific(Section):
    """What is compared: named systems, or every combination of some axes."""

    systems: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """{name: {config key: value}}: what makes each system, in place of `axes`."""
    axes: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """{config key: values}: every combination is a system, in place of `systems`."""
    exclude: tuple[dict[str, Any], ...] = ()
    """Combinations of `axes` that are left out: those with all of these values."""


class Nuisance(Section):
    """What is chosen for each system on held-out arguments, by the same number of trials."""

    keys: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """{config key: values to try}."""
    per_system: dict[str, dict[str, tuple[Any, ...]]] = Field(default_factory=dict)
    """{system: {config key: values}}: ranges of its own, as many values as in `keys`."""
    seed: int = Field(0, ge=0)
    """The seed of the trials."""
    extend: bool = False
    """Whether a range whose best value lies on its edge is extended, for all systems alike."""


class Contrast(Section):
    """A difference a - b that the study asks for."""

    a: Text
    b: Text


class Budget(Section):
    """Equal budgets: the size of each method is chosen to come closest."""

    trainable_parameters: int | None = Field(None, ge=1)
    """Rank, prompt length or number of layers follow from it; heads count."""
    training_flops: float | None = Field(None, gt=0)
    """The number of epochs follows from it."""


class Study(Section):
    """A whole study file."""

    name: Name = "study"
    """Name of the study. Default: the name of the file, without `.yaml`."""
    question: Text
    """The question that it answers, in one sentence."""
    base: Text
    """The config file that all systems start from, relative to the study file."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """{config key: value}: changes to `base` for all systems."""
    scientific: Scientific
    nuisance: Nuisance = Nuisance()
    repeated: dict[str, tuple[Any, ...]] = Field(default_factory=lambda: {"seed": (0, 1, 2)})
    """{config key: values}: `seed`, and other random choices such as a prompt's initial vectors or template."""
    contrasts: tuple[Contrast, ...] | None = None
    """The differences that are tested. null: every system with `baseline`."""
    baseline: Text | None = None
    """The system that others are compared with. null: the first."""
    metric: Literal["official_f1", "mean_category_f1"] = "official_f1"
    """The primary figure; the other one is printed beside it."""
    report: tuple[Text, ...] = ("validation", "test")
    """Splits that are reported once, at the end."""
    budget: Budget | None = None
    replicate: bool = False
    """Allow what the original did: choosing on a split that is reported. The report says so."""
    output: Text = "studies/{name}"
    """Folder of the study; `{name}` is filled in."""
