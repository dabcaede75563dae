"""Reads config files: YAML, one optional `base:`, dotted overrides.

A config file holds only the keys that differ from the defaults of the schema. Everything is checked when the file is
read, before anything is loaded: the error for an unknown key suggests the closest one, and one sentence says which keys
do not fit together.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from jaxvalues.config.reading import parse_yaml, read_yaml, text_problem, user_path
from jaxvalues.config.run_format import add_meaning, check_meaning
from jaxvalues.config.schema import Config, EnsembleConfig
from jaxvalues.errors import ConfigError, UserError, name_list, short

MOST_BASES = 20
"""The length of the longest chain of `base:` files."""


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read a config file with its `base:` chain and dotted overrides (`optimizer.learning_rate=1e-4`).

    `base:` is a path relative to the file that contains it. `name` defaults to the stem of the file. The config.yaml of
    a run folder is read as its version meant it, see `run_format`.
    Raises ConfigError with one sentence per problem.
    """
    try:
        path = user_path(path)
        tree = {"name": path.stem, **_read_with_base(path, ())}
        for override in overrides:
            _apply_override(tree, override)
        check_meaning(str(path), tree)
    except UserError as error:
        raise ConfigError(str(error)) from None
    return parse_config(tree, where=str(path))


def parse_config(tree: dict[str, Any], where: str = "config") -> Config:
    """Validate a nested dict and the members of its ensemble; error messages begin with `where`."""
    if problem := _text_problem(tree):
        raise ConfigError(f"{where}: {problem}")
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_sentences(where, error.errors())) from None
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
        member = parse_config(_merge(common, change), f"{where}: member {change['name']}")
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


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.1 with four changes: a repeated key is an error, 1e-5 is a number, and Yes and 2024-01-31 are strings.

    PyYAML keeps the last of repeated keys without a word. The numbers 010 (octal), 0x10, 1_000 and 1:30 (90) are
    strings too.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`, which keys beside it may override
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                problem = f"the key {short(key)} in line {line} is no word, expected the name of a setting"
                raise yaml.constructor.ConstructorError(None, None, problem)
            if key in keys:
                raise yaml.constructor.ConstructorError(None, None, f"key `{key}` is repeated in line {line}")
            keys.add(key)
        return super().construct_mapping(node, deep)


# Booleans and decimal numbers as in YAML 1.2. PyYAML follows 1.1, where Yes and No are booleans, 1e-5 is a string and
# 010 is 8.
_BOOL, _DATE = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_BOOL, _DATE)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver(_BOOL, re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
for _resolvers in _StrictLoader.yaml_implicit_resolvers.values():
    _resolvers[:] = [one for one in _resolvers if one[0] not in (_INT, _FLOAT)]
_StrictLoader.add_implicit_resolver(_INT, re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_StrictLoader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


def _read_with_base(path: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    """The tree of a config file, merged into that of its `base:`. Raises UserError."""
    place = os.path.realpath(path)
    if place in seen:
        raise ConfigError(f"{path}: `base:` leads back to this file")
    if len(seen) > MOST_BASES:
        raise ConfigError(f"{path}: is the base of a base {len(seen)} times over, expected at most {MOST_BASES}")
    tree = read_yaml(path, _StrictLoader, "no such config file")
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a config must be a mapping of sections, not {type(tree).__name__}")
    add_meaning(path, tree)
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: `base:` must be the path of one config file, not {short(base)}")
    return _merge(_read_with_base(path.parent / user_path(base), (*seen, place)), tree)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override `{override}` must have the form key=value, e.g. optimizer.learning_rate=1e-4")
    if key == "base":
        raise ConfigError(f"override `{override}`: `base` can only be set in a config file")
    value = parse_yaml(text, _StrictLoader, f"override `{override}`: the value is not valid YAML")
    *parents, leaf = key.split(".")
    if len(parents) > 20:
        raise ConfigError(f"override `{key}` names a key below {len(parents)} others, and no config has such keys")
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        else:
            tree[parent] = dict(tree[parent])
        tree = tree[parent]
    tree[leaf] = value


# What pydantic calls by names of Python, in the words of YAML.
_PLAIN = {
    "tuple_type": "input should be a list",
    "list_type": "input should be a list",
    "dict_type": "input should be a mapping",
    "model_type": "input should be a mapping of settings",
    "model_attributes_type": "input should be a mapping of settings",
    "int_type": "input should be an integer",
    "int_parsing": "input should be an integer",
    "int_parsing_size": "input should be a smaller integer",
    "int_from_float": "input should be an integer",
    "float_type": "input should be a number",
    "float_parsing": "input should be a number",
    "bool_type": "input should be true or false",
    "bool_parsing": "input should be true or false",
    "string_type": "input should be a string",
    "finite_number": "input should be a finite number",
}


def _text_problem(tree: Any, key: str = "") -> str | None:
    """The first string of a tree that no file and no path can hold, with its key; None where there is none."""
    if isinstance(tree, str) and (problem := text_problem(tree)):
        return f"`{key}` {problem}"
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = (_text_problem(value, f"{key}.{name}".removeprefix(".")) for name, value in inner)
    return next((problem for problem in found if problem), None)


def _sentences(where: str, problems: list[Any]) -> str:
    """The problems that pydantic found, one sentence per key: the first three, or fewer where these are long."""
    by_key: dict[str, list[Any]] = {}
    for problem in _causes(problems):
        by_key.setdefault(_key(problem), []).append(problem)
    said = [_sentence(key, problems) for key, problems in list(by_key.items())[:3]]
    several = (f"{where}: {name_list([*said, *list(by_key)[3:]], most, '; ')}" for most in (3, 2, 1))
    return next((text for text in several if len(text) < 300), f"{where}: {said[0]}")


def _causes(problems: list[Any]) -> list[Any]:
    """The problems without that of a list whose faulty items pydantic did not count ("should have at least 1 item")."""
    return [
        one
        for one in problems
        if one["type"] != "too_short"
        or all(other is one or other["loc"][: len(one["loc"])] != one["loc"] for other in problems)
    ]


def _key(problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        return ".".join(location)
    # Pydantic appends the member of a union to the location, as if it were a key.
    members = ("float", "str", "int", "constrained-int", "bool")
    return ".".join(part for part in location if part not in members and not part.startswith("literal["))


def _sentence(key: str, problems: list[Any]) -> str:
    """What is wrong with one key. A value that fits no member of a union has one problem per member."""
    first = problems[0]
    if first["type"] == "extra_forbidden":
        *section, name = key.split(".")
        near = _nearest(section, name)
        known = [".".join((*section, one)) for one in _keys_at(section)]
        hint = (
            f"did you mean `{near}`?" if near else f"known keys here: {name_list(known)} (`jaxvalues schema` has all)"
        )
        return f"unknown key `{key}`; {hint}"
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    expected = " or ".join(
        dict.fromkeys(_PLAIN.get(one["type"], one["msg"][0].lower() + one["msg"][1:]) for one in problems)
    )
    return f"`{key}`: {expected.replace(' or input should be', ' or')}, not {short(first['input'])}"


def _nearest(section: list[str], name: str) -> str | None:
    """The known key that is written most like an unknown one: in the same section, or else in any, the top first."""
    if near := difflib.get_close_matches(name, _keys_at(section), n=1, cutoff=0.5):
        return ".".join((*section, near[0]))
    keys = sorted(_all_keys(Config), key=lambda key: key.count("."))
    near = difflib.get_close_matches(name, [key.rpartition(".")[2] for key in keys], n=1, cutoff=0.8)
    return next(key for key in keys if key.rpartition(".")[2] == near[0]) if near else None


def _all_keys(section: type[BaseModel]) -> Iterator[str]:
    """Every dotted key below a section."""
    for name in section.model_fields:
        yield name
        inner = _section_at(section, name)
        if inner is not None:
            yield from (f"{name}.{key}" for key in _all_keys(inner))


def _keys_at(location: list[str]) -> list[str]:
    section: type[BaseModel] = Config
    for part in location:
        section = _section_at(section, part)
    return list(section.model_fields) + ["base"] * (section is Config)


def _section_at(section: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The section under a name, also where it may be null; None where there is a value."""
    annotation = section.model_fields[name].annotation
    kinds = getattr(annotation, "__args__", (annotation,))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
