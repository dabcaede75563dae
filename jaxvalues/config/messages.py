"""What is wrong with a tree of settings, in one sentence per key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from jaxvalues.config.reading import text_problem
from jaxvalues.config.section import Section
from jaxvalues.errors import ConfigError, name_list, short

AnySection = TypeVar("AnySection", bound=Section)


def validate(section: type[AnySection], tree: dict[str, Any], where: str) -> AnySection:
    """The settings of a tree; error messages begin with `where`. Raises ConfigError with one sentence per problem."""
    if problem := _text_problem(tree):
        raise ConfigError(f"{where}: {problem}")
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_sentences(where, error.errors(), section)) from None


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
    "too_short": "input should have at least one item",
}


def _text_problem(tree: Any, key: str = "") -> str | None:
    """The first string of a tree that no file and no path can hold, with its key; None where there is none."""
    if isinstance(tree, str) and (problem := text_problem(tree)):
        return f"`{key}` {problem}"
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = (_text_problem(value, f"{key}.{name}".removeprefix(".")) for name, value in inner)
    return next((problem for problem in found if problem), None)


def _sentences(where: str, problems: list[Any], root: type[Section]) -> str:
    """The problems that pydantic found, one sentence per key: the first three, or fewer where these are long."""
    by_key: dict[str, list[Any]] = {}
    for problem in _causes(problems):
        by_key.setdefault(_key(problem), []).append(problem)
    said = [_sentence(key, problems, root) for key, problems in list(by_key.items())[:3]]
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


def _sentence(key: str, problems: list[Any], root: type[Section]) -> str:
    """What is wrong with one key. A value that fits no member of a union has one problem per member."""
    first = problems[0]
    if first["type"] == "extra_forbidden":
        *section, name = key.split(".")
        near = _nearest(root, section, name)
        known = [".".join((*section, one)) for one in _keys_at(root, section)]
        if near == key:
            nested = key.replace(".", ": {") + ": …" + "}" * len(section)
            return f"unknown key `{key}`: in a file, write `{nested}`"
        if near or not known:
            return f"unknown key `{key}`" + (f"; did you mean `{near}`?" if near else "")
        return f"unknown key `{key}`; known keys here: {name_list(known)} ({root.all_keys} has all)"
    if first["type"] == "missing":
        return f"`{key}` is missing"
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    expected = " or ".join(
        dict.fromkeys(_PLAIN.get(one["type"], one["msg"][0].lower() + one["msg"][1:]) for one in problems)
    )
    given = "null" if first["input"] is None else short(first["input"])
    return f"`{key}`: {expected.replace(' or input should be', ' or')}, not {given}"


def _nearest(root: type[BaseModel], section: list[str], name: str) -> str | None:
    """The known key that is written most like an unknown one: in the same section, or else in any, the top first."""
    if near := difflib.get_close_matches(name, _keys_at(root, section), n=1, cutoff=0.5):
        return ".".join((*section, near[0]))
    keys = sorted(_all_keys(root), key=lambda key: key.count("."))
    near = difflib.get_close_matches(name, [key.rpartition(".")[2] for key in keys], n=1, cutoff=0.8)
    return next(key for key in keys if key.rpartition(".")[2] == near[0]) if near else None


def _all_keys(section: type[BaseModel]) -> Iterator[str]:
    """Every dotted key below a section."""
    for name, field in section.model_fields.items():
        yield name
        inner = _section_of(field.annotation)
        if inner is not None:
            yield from (f"{name}.{key}" for key in _all_keys(inner))


def _keys_at(root: type[BaseModel], location: list[str]) -> list[str]:
    """The keys of the section at a location, which may lead through lists and mappings; [] where there is none."""
    annotation: Any = root
    for part in location:
        annotation = _under(annotation, part)
    section = _section_of(annotation)
    return [] if section is None else list(section.model_fields) + ["base"] * (section is root)


def _under(annotation: Any, part: str) -> Any:
    """The annotation of a key of a section, or of the items of a list or mapping; None where there is a value."""
    for kind in _kinds(annotation):
        if _is_section(kind) and part in kind.model_fields:
            return kind.model_fields[part].annotation
        if get_origin(kind) in (tuple, list, dict):
            return next(item for item in reversed(get_args(kind)) if item is not Ellipsis)
    return None


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation stands for, also where it may be null; None where it is a value."""
    return next(filter(_is_section, _kinds(annotation)), None)


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the one kind there is."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
