"""Reading and writing checkpoints with one table per architecture: Hugging Face name <-> path, in both directions.

A table is strict. Every tensor of the checkpoint is used once or is listed as ignorable, every leaf of the parameter
tree is filled, and every shape is checked. One error reports all that does not fit.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvalues.errors import UserError
from jaxvalues.models.checkpoints.misfits import misfit_message
from jaxvalues.models.checkpoints.place import PlaceLike, as_place, check_only
from jaxvalues.models.layers.layout import LAYERS, parse_key, ungroup

FLOATS = ("F32", "F16", "BF16", "F64")
"""The types of safetensors that weights may have."""


def identity(x: np.ndarray) -> np.ndarray:
    """The transform of a tensor that is the same on both sides."""
    return x


def transpose(x: np.ndarray) -> np.ndarray:
    """The transform of a matrix that torch holds as [out, in] and Flax as [in, out]."""
    return x.T


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of a table: `hf` and `path` are templates in which {i} stands for the number of a layer."""

    hf: str
    path: str
    read: Callable[[np.ndarray], np.ndarray] = identity  # what the file holds -> what the tree holds
    write: Callable[[np.ndarray], np.ndarray] = identity  # and back


def dense(hf: str, path: str) -> tuple[Rule, Rule]:
    """The rules of a torch Linear and a Flax Dense."""
    return Rule(f"{hf}.weight", f"{path}/kernel", transpose, transpose), Rule(f"{hf}.bias", f"{path}/bias")


def norm(hf: str, path: str) -> tuple[Rule, Rule]:
    """The rules of a layer norm."""
    return Rule(f"{hf}.weight", f"{path}/scale"), Rule(f"{hf}.bias", f"{path}/bias")


@dataclasses.dataclass(frozen=True)
class Table:
    """How an architecture's checkpoints are named.

    `prefixes` are those that a checkpoint may put before every name; the one under which most names are found is taken.
    `ignorable` are patterns of tensors that are not read, matched against the whole name with and without the prefix.
    `aliases` are (pattern, replacement) pairs that turn older names into those of the rules.
    """

    rules: tuple[Rule, ...]
    prefixes: tuple[str, ...] = ("",)
    ignorable: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

    def under(self, key: str) -> Table:
        """The table of a network that holds these parameters under `key`, and nothing else from a checkpoint."""
        return dataclasses.replace(
            self, rules=tuple(dataclasses.replace(rule, path=f"{key}/{rule.path}") for rule in self.rules)
        )

    def bind(self, path: str) -> tuple[str, Rule]:
        """The Hugging Face name (without prefix) and the rule of a canonical path such as "layers/3/mlp/up/bias"."""
        for rule in self.rules:
            match = re.fullmatch(re.escape(rule.path).replace(r"\{i\}", r"(\d+)"), path)
            if match:
                return rule.hf.replace("{i}", match[1]) if match.groups() else rule.hf, rule
        raise KeyError(f"no rule for the parameter {path}")


def to_params(
    tensors: Mapping[str, Any], table: Table, abstract_params: Any, *, place: PlaceLike = None, source: str = ""
) -> dict[str, Any]:
    """Read a checkpoint into a parameter tree with the shapes of `abstract_params`, however its layers are grouped.

    `tensors` maps names to arrays, or to anything with a `shape` that numpy can read (so they can be lazy: one leaf is
    in memory at a time besides those already placed). Every leaf is float32, unless `place` says otherwise. `place`
    reads leaves and puts them on their devices, so that sharded parameters are never whole on one device; with
    `check_only` nothing is read, and the tree is empty. Raises one `UserError` for all missing, unexpected and
    misshapen tensors, which names the likely cause; `source` names the checkpoint in it.
    """
    place = as_place(place)
    names = _original_names(tensors, table)
    leaves = flatten_dict(abstract_params, sep="/")
    bound = {path: [table.bind(each) for each in _canonical_paths(path)] for path in leaves}
    if any(problems := _problems(tensors, names, table, leaves, bound)):
        raise UserError(misfit_message(source, *problems, table.prefixes))
    if place is check_only:
        return {}

    def put(path: str) -> jax.Array:
        parts = (rule.read(place.read(tensors[names[name]])) for name, rule in bound[path])
        if _is_stacked(path):
            return place.stack(path, leaves[path].shape, parts)
        return place(path, next(parts).astype(place.dtype_of(path), copy=False))

    return unflatten_dict({path: put(path) for path in leaves}, sep="/")


def to_tensors(params: Any, table: Table, *, prefix: str = "") -> dict[str, np.ndarray]:
    """The checkpoint of a parameter tree: float32 arrays under Hugging Face's names, each after `prefix`."""
    tensors = {}
    for path, leaf in flatten_dict(ungroup(params), sep="/").items():
        name, rule = table.bind(path)
        tensors[prefix + name] = np.ascontiguousarray(rule.write(np.asarray(leaf, dtype=np.float32)))
    return tensors


def _original_names(tensors: Mapping[str, Any], table: Table) -> dict[str, str]:
    """{name as in the rules: name in the checkpoint}, with the checkpoint's prefix found and its old names renamed."""
    patterns = [re.compile(re.escape(rule.hf).replace(r"\{i\}", r"\d+")) for rule in table.rules]

    def strip(prefix: str) -> dict[str, str]:
        names = {}
        for original in tensors:
            name = original.removeprefix(prefix)
            for old, new in table.aliases:
                name = re.sub(old, new, name)
            names[name] = original
        return names

    candidates = [strip(prefix) for prefix in table.prefixes]
    return max(candidates, key=lambda names: sum(any(p.fullmatch(name) for p in patterns) for name in names))


def _problems(
    tensors: Mapping[str, Any],
    names: dict[str, str],
    table: Table,
    leaves: dict[str, Any],
    bound: dict[str, list[tuple[str, Rule]]],
) -> tuple[list[str], list[str], dict[str, list[str]]]:
    """The tensors in which a checkpoint and a parameter tree differ: missing, unexpected, and {how: unfit ones}."""
    missing, misshapen, mistyped, used = [], [], [], set()
    for path, leaf in leaves.items():
        expected = tuple(leaf.shape[1:] if _is_stacked(path) else leaf.shape)
        for name, rule in bound[path]:
            used.add(name)
            if name not in names:
                missing.append(name)
                continue
            kind = getattr(tensors[names[name]], "kind", "F32")
            if kind not in FLOATS:
                mistyped.append(f"{names[name]} ({kind})")
            # The transform of an array without memory gives the shape without reading the tensor.
            found = rule.read(np.broadcast_to(np.float32(0), tuple(tensors[names[name]].shape))).shape
            if found != expected:
                misshapen.append(f"{names[name]} (read as {list(found)}, expected {list(expected)})")
    ignorable = re.compile("|".join(table.ignorable) or r"(?!)")
    ours = {original: name for name, original in names.items()}  # lacks a tensor whose new name another one has too
    unexpected = [
        original
        for original in tensors
        if ours.get(original) not in used
        and not ignorable.fullmatch(original)
        and not ignorable.fullmatch(ours.get(original, original))
    ]
    unfit = {"of another shape": misshapen, f"of another type than {', '.join(FLOATS)}": mistyped}
    return missing, unexpected, {how: found for how, found in unfit.items() if found}


def _canonical_paths(path: str) -> list[str]:
    """The unrolled paths that a leaf stands for: one, or one per layer of a stacked segment."""
    parts = path.split("/")
    at = _segment_at(parts)
    if at is None:
        return [path]
    first, last = parse_key(parts[at])
    return ["/".join([*parts[:at], str(i), *parts[at + 1 :]]) for i in range(first, last + 1)]


def _is_stacked(path: str) -> bool:
    return len(_canonical_paths(path)) > 1


def _segment_at(parts: list[str]) -> int | None:
    """The position of the segment key in a path, or None where the leaf belongs to no layer."""
    return parts.index(LAYERS) + 1 if LAYERS in parts else None
