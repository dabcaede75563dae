"""Reads config files: YAML, one optional `base:`, dotted overrides.

A config file holds only the keys that differ from the defaults of the schema. Everything is checked when the file is
read, before anything is loaded: the error for an unknown key suggests the closest one, and one sentence says which keys
do not fit together.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from jaxvalues.config.ensemble import EnsembleConfig
from jaxvalues.config.messages import validate
from jaxvalues.config.reading import user_path
from jaxvalues.config.run_format import check_meaning
from jaxvalues.config.schema import Config
from jaxvalues.config.trees import apply_override, merge, read_tree
from jaxvalues.errors import ConfigError, UserError


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read a config file with its `base:` chain and dotted overrides (`optimizer.learning_rate=1e-4`).

    `base:` is a path relative to the file that contains it. `name` defaults to the stem of the file. The config.yaml of
    a run folder is read as its version meant it, see `run_format`.
    Raises ConfigError with one sentence per problem.
    """
    try:
        path = user_path(path)
        tree = {"name": path.stem, **read_tree(path)}
        for override in overrides:
            apply_override(tree, override)
        check_meaning(str(path), tree)
        if "scientific" in tree:
            raise ConfigError(f"{path} is a study: `jaxvalues compare` runs it")
    except UserError as error:
        raise ConfigError(str(error)) from None
    return parse_config(tree, where=str(path))


def parse_config(tree: dict[str, Any], where: str = "config") -> Config:
    """Validate a nested dict and the members of its ensemble; error messages begin with `where`."""
    config = validate(Config, tree, where)
    if config.ensemble is not None:
        runs_of(config, where)
    return config


def runs_of(config: Config, where: str = "config") -> tuple[Config, ...]:
    """The single runs of a config, members × seeds × folds, in the order of training.

    The changes of a member are merged into the config section by section, as a file is merged into its `base:`. Each
    run has its own folder below that of the config, such as `deberta-seed0-fold2`. Only its folder, name and
    `data.fold` differ from a run of the same settings trained alone. A config of one run is returned as it is.
    Raises ConfigError that names the member.
    """
    if not config.is_ensemble:
        return (config,)
    ensemble = config.ensemble or EnsembleConfig()
    common = config.model_dump(mode="json", exclude={"ensemble"})
    runs = []
    for change in ensemble.members or ({"name": config.name},):
        member = parse_config(merge(common, change), f"{where}: member {change['name']}")
        data = member.data
        folds = (data.fold,) if data.folds is None or data.fold is not None else range(data.folds)
        for seed, fold in product(ensemble.seeds or (member.seed,), folds):
            folder = f"{member.name}-seed{seed}" + ("" if fold is None else f"-fold{fold}")
            changes = {"seed": seed, "data": data.model_copy(update={"fold": fold})}
            runs.append(member.model_copy(update={**changes, "output": str(config.folder / folder)}))
    return tuple(runs)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a config file, for completion and checks in editors."""
    schema = Config.model_json_schema()
    schema["properties"]["base"] = {"type": "string", "description": "Config file to start from."}
    return schema
