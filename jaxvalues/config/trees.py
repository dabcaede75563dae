"""Trees of settings as files and command lines hold them: YAML, one optional `base:`, dotted overrides.

Nothing here knows which settings there are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from jaxvalues.config.reading import parse_yaml, read_yaml, user_path
from jaxvalues.config.run_format import add_meaning
from jaxvalues.errors import ConfigError, short

MOST_BASES = 20
"""The length of the longest chain of `base:` files."""


def read_tree(path: Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tree of a config file, merged into that of its `base:`. Raises UserError."""
    place = os.path.realpath(path)
    if place in seen:
        raise ConfigError(f"{path}: `base:` leads back to this file")
    if len(seen) > MOST_BASES:
        raise ConfigError(f"{path}: is the base of a base {len(seen)} times over, expected at most {MOST_BASES}")
    tree = read_yaml(path, StrictLoader, "no such config file")
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
    return merge(read_tree(path.parent / user_path(base), (*seen, place)), tree)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = merge(base[key], value) if both else value
    return merged


def apply_override(tree: dict[str, Any], override: str, keyed: Sequence[str] = ()) -> None:
    """Set a value of a tree by `key=value`. Below one of `keyed`, the rest of the key is one, dots included."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override `{override}` must have the form key=value, e.g. optimizer.learning_rate=1e-4")
    if key == "base":
        raise ConfigError(f"override `{override}`: `base` can only be set in a config file")
    value = parse_yaml(text, StrictLoader, f"override `{override}`: the value is not valid YAML")
    above = next((one for one in keyed if key.startswith(f"{one}.")), None)
    *parents, leaf = key.split(".") if above is None else [*above.split("."), key.removeprefix(f"{above}.")]
    if len(parents) > 20:
        raise ConfigError(f"override `{key}` names a key below {len(parents)} others, and no config has such keys")
    _forget(tree, [*parents, leaf])
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        else:
            tree[parent] = dict(tree[parent])
        tree = tree[parent]
    tree[leaf] = value


def _forget(tree: dict[str, Any], key: Sequence[str]) -> None:
    """Remove a key and what is below it where they are written with dots, as a study may: `training.epochs: 3`."""
    for name in [*tree]:
        parts = name.split(".")
        if len(parts) > 1 and parts[: len(key)] == [*key]:
            del tree[name]
        elif parts == [*key[: len(parts)]] and isinstance(tree[name], dict):
            tree[name] = dict(tree[name])
            _forget(tree[name], key[len(parts) :])


class StrictLoader(yaml.SafeLoader):
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
StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_BOOL, _DATE)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
StrictLoader.add_implicit_resolver(_BOOL, re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
for _resolvers in StrictLoader.yaml_implicit_resolvers.values():
    _resolvers[:] = [one for one in _resolvers if one[0] not in (_INT, _FLOAT)]
StrictLoader.add_implicit_resolver(_INT, re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
StrictLoader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"tuning": {"method": "lora"}} as {"tuning.method": "lora"}."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def without_nulls(tree: Any) -> Any:
    """A tree of settings without the keys whose value is None."""
    if not isinstance(tree, dict):
        return tree
    return {key: without_nulls(value) for key, value in tree.items() if value is not None}
