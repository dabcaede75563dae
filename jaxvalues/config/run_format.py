"""The format of run folders, and config files that earlier formats wrote: what their keys meant then.

Format 1 has no number. In it, `training.batch_size` counted rows: single questions, unless they branched from their
argument. `data.shots` and `data.fraction` left the held-out part whole, and `data.negatives` drew once per run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxvalues.config.reading import read_json
from jaxvalues.errors import ConfigError, UserError

RUN_FORMAT = 2
"""The format that this version writes into environment.json."""

_UNSAID = object()  # the value of a key that the file of an earlier format cannot tell


def run_format(folder: Path) -> int:
    """The format of a run folder, from its environment.json. That of this version if there is no such file."""
    try:
        return read_json(folder / "environment.json", "what the run was made of").get("format", 1)
    except UserError:  # whoever reads it says what is wrong with it
        return RUN_FORMAT


def add_meaning(path: Path, tree: dict[str, Any]) -> None:
    """Add to the `tree` of a run's config.yaml what its keys meant in the format of its folder."""
    if path.name != "config.yaml" or run_format(path.parent) != 1:
        return
    sections = (tree.get(name) for name in ("data", "formulation", "training"))
    data, formulation, training = (section if isinstance(section, dict) else {} for section in sections)
    if data.get("shots") is not None or data.get("fraction") is not None:
        data.setdefault("full_held_out", True)
    if formulation.get("kind", "classify") != "classify":
        training.setdefault("questions_per_step", _UNSAID)


def check_meaning(where: str, tree: dict[str, Any]) -> None:
    """Raise ConfigError where the meaning of `training.batch_size` cannot be told."""
    training = tree.get("training")
    if isinstance(training, dict) and training.get("questions_per_step") is _UNSAID:
        rows = training.get("batch_size", 8)
        raise ConfigError(
            f"{where}: written by an earlier version, whose training.batch_size counted single questions unless they "
            f"branched. It counts arguments now: set training.questions_per_step={rows} for as many questions, or null"
        )
