"""Whether the finished runs of a study were made of the data, weights and templates that are here now."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from jaxvalues.config import Config
from jaxvalues.config.data import DataConfig
from jaxvalues.config.model import ModelConfig
from jaxvalues.config.reading import read_file, user_path
from jaxvalues.data.task import TASKS
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.formulations import load_texts
from jaxvalues.models import hub_name
from jaxvalues.run.base import find_base
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.outline import parts_here
from jaxvalues.run.provenance import SYNONYMS, TEMPLATE, checksum
from jaxvalues.study.choice import choose, extended
from jaxvalues.study.combined import combined_runs
from jaxvalues.study.plan import Plan, PlannedRun
from jaxvalues.templates.synonyms import load_synonyms, synonyms_text


def check_unchanged(plan: Plan) -> None:
    """Raise UserError for a finished run that was made of other data, weights or texts than those of the study now.

    Their files may have changed under the same names, and runs of both kinds must not be averaged. What is not here,
    such as the weights where a report is made elsewhere, is not compared.
    """
    checksums, identity = functools.cache(_checksums), functools.cache(_identity)
    for one in _finished(plan):
        config, folder = one.config, RunFolder(one.config.folder)
        before = folder.environment()
        now = checksums(config.data.model_dump_json())
        if changed := sorted(part for part, digest in now.items() if before["data"].get(part, digest) != digest):
            _refuse(one, f"other data ({changed[0]} differs)")
        weights = identity(config.model.model_dump_json(), config.start_seed)
        if weights is not None and before["base"] != weights:
            _refuse(one, "other weights")
        if weights is None and (other := _other_hub_name(folder.config().model, config.model)) is not None:
            _refuse(one, f"other weights (model.path {other})")
        if _differs(folder.path / TEMPLATE, _text(config)):
            _refuse(one, "another text in its template or descriptions")
        if _differs(folder.path / SYNONYMS, _synonyms(config)):
            _refuse(one, "other synonyms")


def _refuse(one: PlannedRun, what: str) -> None:
    raise UserError(
        f"{one.config.folder} was made with {what}: remove the runs that are to be made again, or give another "
        "output=FOLDER"
    )


def _finished(plan: Plan) -> Iterator[PlannedRun]:
    """The finished trials and runs of a study, members of combined runs among them."""
    added = extended(plan)
    planned = []
    for system in plan.systems:
        planned += plan.trials(system, added)
        if (chosen := choose(plan, system, added)) is not None:
            planned += plan.runs(system, chosen)
    for name, how in plan.study.scientific.combined.items():
        if (chosen := choose(plan, how.of, added)) is not None:
            planned += [member for one in combined_runs(plan, name, chosen) for member in one.members]
    seen: set[Path] = set()
    for one in planned:
        if one.config.folder not in seen and RunFolder(one.config.folder).is_finished:
            seen.add(one.config.folder)
            yield one


def _checksums(data: str) -> dict[str, str]:
    """{part of the data: checksum}; {} where the data are not here."""
    parts = parts_here(DataConfig.model_validate_json(data))
    return {} if parts is None else {name: checksum(split) for name, split in parts.by_name.items()}


def _identity(model: str, seed: int) -> str | None:
    """The hash of the weights of a config; None where they are not in a file here."""
    config = ModelConfig.model_validate_json(model)
    if config.endpoint is not None:
        return None
    if config.config is None and (hub_name(config.path) is not None or not user_path(config.path).exists()):
        return None
    return find_base(config, seed).identity


def _other_hub_name(before: ModelConfig, now: ModelConfig) -> str | None:
    """The hub name that a run was made with, where the study has another one now; None for equal ones or a folder."""
    made, wanted = (None if one.path is None else hub_name(one.path) for one in (before, now))
    return None if None in (made, wanted) or made == wanted else made


def _differs(kept: Path, text: str | None) -> bool:
    """Whether a run folder kept another text than the one of now; False where one of them is not here."""
    return text is not None and kept.is_file() and read_file(kept) != f"{text}\n".encode()


def _synonyms(config: Config) -> str | None:
    """The text of a config's synonyms; None where their file is not here."""
    try:
        return synonyms_text(load_synonyms(config.formulation.synonyms))
    except ConfigError:
        return None


def _text(config: Config) -> str | None:
    """The text of a config's template, descriptions included; None where its files are not here."""
    try:
        return load_texts(config.formulation, TASKS[config.data.task]).text
    except ConfigError:
        return None
