"""Descriptions: what the 20 categories mean, in words for a model to read.

Those of jaxvalues are made from the taxonomy: a category's `name`, its name with its level 1 `values`, or its name with
its `definition`. A path names a user's own: a table like the data's (UTF-8, columns separated by single tabs) with the
header `Category`, `Description` and one row for each category, in any order.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from jaxvalues.data.taxonomy import CATEGORIES, TAXONOMY, Category
from jaxvalues.data.text import Report
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
    return read_descriptions(path, table_rows(path, HEADER, _refuse))


def read_descriptions(path: str | Path, rows: Iterable[tuple[int, str, str]]) -> dict[str, str]:
    """Descriptions from the rows of a file, each its line, category and text: {category: text} in official order."""
    rows = ((line, name, " ".join(text.split())) for line, name, text in rows)
    return {name: text for name, (_, text) in rows_of_categories(path, rows, "description", _refuse).items()}


def rows_of_categories(
    path: str | Path, rows: Iterable[tuple[int, str, str]], what: str, refuse: Report
) -> dict[str, tuple[int, str]]:
    """The line and the text of each category's row, in the order of CATEGORIES, from (line, category, text).

    `refuse` raises; it is told, with file and line, of an unknown category, one that comes twice, and an empty text,
    which is called `what`, and of categories that have no row.
    """
    found: dict[str, tuple[int, str]] = {}
    for line, name, text in rows:
        if name not in CATEGORIES:
            near = difflib.get_close_matches(name, CATEGORIES, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"they are {', '.join(CATEGORIES)}"
            refuse(f"{path}, line {line}: there is no category `{name}`; {hint}")
        if name in found:
            refuse(f"{path}, line {line}: the category {name} stands in line {found[name][0]} already")
        if not text.strip():
            refuse(f"{path}, line {line}: the {what} of {name} is empty")
        found[name] = line, text
    if missing := [name for name in CATEGORIES if name not in found]:
        refuse(f"{path}: no {what} of {', '.join(missing)}; every category must have one")
    return {name: found[name] for name in CATEGORIES}


def table_rows(path: str | Path, header: Sequence[str], refuse: Report) -> Iterator[tuple[int, str, str]]:
    """The rows of a file with a header and two columns: line, category, text."""
    for line, (name, (text,)) in enumerate(zip(*read_table(path, header, report=refuse), strict=True), start=2):
        yield line, name, text


def _refuse(problem: str) -> NoReturn:
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
