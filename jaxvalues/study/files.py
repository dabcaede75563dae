"""Reads study files: YAML and dotted overrides."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Any

import yaml

from jaxvalues.config.messages import validate
from jaxvalues.config.reading import read_yaml, user_path
from jaxvalues.config.schema import Config
from jaxvalues.config.trees import StrictLoader, apply_override, read_tree
from jaxvalues.config.writing import write_whole, writing
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.study.schema import Study

STUDY = "study.yaml"
"""In the folder of a study: the study itself."""

_KEYED = ("repeated", "nuisance.keys", "scientific.axes")
"""Parts of a study whose keys are config keys, dots included."""


def load_study(path: str | Path, overrides: tuple[str, ...] = ()) -> Study:
    """Read a study file with overrides.

    An override of a study's own key changes the study (`repeated.seed=[0,1]`). One of a config key changes the base of
    all systems (`data.dir=FOLDER`, short for `changes.data.dir=FOLDER`). `base` is relative to the study file. Raises
    ConfigError with one sentence per problem.
    """
    try:
        path = user_path(path)
        tree = read_yaml(path, StrictLoader, "no such study file")
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}: a study must be a mapping of settings, not {type(tree).__name__}")
        if not {"question", "scientific"} & tree.keys() and {"data", "model", "tuning", "base"} & tree.keys():
            raise ConfigError(f"{path} is the config of a run: `jaxvalues train` runs it")
        tree = {"name": path.stem, **tree}
        for override in overrides:
            apply_override(tree, _of_study(override), _KEYED)
        _place_bases(tree, path.parent)
    except UserError as error:
        raise ConfigError(str(error)) from None
    return validate(Study, tree, str(path))


def save_study(study: Study) -> None:
    """Write a study into its folder, with copies of the config files that it starts from.

    So its report can be made again wherever the folder is, whatever becomes of those files.
    """
    tree = study.model_dump(mode="json")
    for holder in (tree, *tree["scientific"]["systems"].values()):
        if isinstance(holder.get("base"), str):
            holder["base"] = _copy_base(Path(holder["base"]), study.folder)
    write_whole(study.folder / STUDY, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


def _copy_base(source: Path, folder: Path) -> str:
    """Copy a config, with what it is based on itself, into a study's folder. Returns the copy's place there."""
    content = yaml.safe_dump(read_tree(source), sort_keys=False, allow_unicode=True)
    # Two folders may hold files of one name. The folder's name stays: reports know configs/paper by it.
    digest = hashlib.sha256(content.encode()).hexdigest()[:6]
    place = Path("bases") / digest / source.resolve().parent.name / source.name
    target = folder / place
    if target.resolve() != source.resolve():
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, content)
    return str(place)


def _of_study(override: str) -> str:
    """The override as one of a study: a config key is one of its `changes`. Raises ConfigError for a misspelt one."""
    key = override.partition("=")[0]
    first = key.partition(".")[0]
    known = [*Study.model_fields, *Config.model_fields]
    if first not in known and (near := difflib.get_close_matches(first, known, n=1)):
        raise ConfigError(f"unknown key `{key}`; did you mean `{near[0]}{key.removeprefix(first)}`?")
    return f"changes.{override}" if first in Config.model_fields and first not in Study.model_fields else override


def _place_bases(tree: dict[str, Any], folder: Path) -> None:
    """Make the paths of base configs relative to the working folder instead of the study file."""
    if isinstance(tree.get("base"), str):
        tree["base"] = str(folder / user_path(tree["base"]))
    scientific = tree.get("scientific")
    systems = scientific.get("systems") if isinstance(scientific, dict) else None
    if not isinstance(systems, dict):
        return
    placed = {
        name: {**changes, "base": str(folder / user_path(changes["base"]))}
        if isinstance(changes, dict) and isinstance(changes.get("base"), str)
        else changes
        for name, changes in systems.items()
    }
    tree["scientific"] = {**scientific, "systems": placed}
