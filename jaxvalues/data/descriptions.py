"""Descriptions: what the 20 categories mean, in words for a model to read.

Those of jaxvalues are made from the taxonomy: a category's `name`, its name with its level 1 `values`, or its name with
its `definition`. A path names a user's own: a table like the data's (UTF-8, columns separated by single tabs) with the
header `Category`, `Description` and one row for each category, in any order.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from jaxvalues.data.taxonomy import CATEGORIES, TAXONOMY, Category
from jaxvalues.data.tsv import read_table
from jaxvalues.errors import ConfigError

HEADER = ("Category", "Description")


def load_descriptions(source: str) -> dict[str, str]:
    """What each category means: {category: text} in the order of CATEGORIES, from `name`, `values`, `definition` or a
    user's file, by path.

    Raises ConfigError for an unknown source, and with file and line for a file that does not describe every category
    exactly once.
    """
    if source in _SOURCES:
        return {category.name: _SOURCES[source](category) for category in TAXONOMY}
    path = Path(source)
    if not path.is_file():
        _refuse(f"no descriptions `{source}` (known: {', '.join(_SOURCES)}) and no file there")
    return _read(path)


def _read(path: Path) -> dict[str, str]:
    texts = {}
    for line, (name, (text,)) in enumerate(zip(*read_table(path, HEADER, report=_refuse), strict=True), start=2):
        if name not in CATEGORIES:
            near = difflib.get_close_matches(name, CATEGORIES, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"they are {', '.join(CATEGORIES)}"
            _refuse(f"{path}, line {line}: there is no category `{name}`; {hint}")
        texts[name] = " ".join(text.split())
        if not texts[name]:
            _refuse(f"{path}, line {line}: the description of {name} is empty")
    if missing := [name for name in CATEGORIES if name not in texts]:
        _refuse(f"{path}: no description of {', '.join(missing)}; every category must have one")
    return {name: texts[name] for name in CATEGORIES}


def _refuse(problem: str) -> None:
    raise ConfigError(f"formulation.descriptions: {problem}")


def _with_values(category: Category) -> str:
    values = (value[0].lower() + value[1:] for value in category.values)
    return f"{category.name}: {', '.join(values)}"


def _with_definition(category: Category) -> str:
    """Every definition says what it is good to do or to be; without those three words more of an argument fits in."""
    return f"{category.name}: {category.description.removeprefix('It is good ').removesuffix('.')}"


_SOURCES: dict[str, Callable[[Category], str]] = {
    "name": lambda category: category.name,
    "values": _with_values,
    "definition": _with_definition,
}
