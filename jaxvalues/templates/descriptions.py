"""Descriptions: texts that tell a model what the 20 categories mean.

Three built-in sources come from the taxonomy: a category's `name`, its name with its level 1 `values`, and its name
with its `definition`. A path names a user's file. It is a table in the format of `jaxvalues.data.tsv` with the header
`Category`, `Description` and one row for each category, in any order.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from jaxvalues.config.reading import user_path
from jaxvalues.data.taxonomy import CATEGORIES, TAXONOMY, Category
from jaxvalues.data.text import ProblemHandler
from jaxvalues.data.tsv import read_table
from jaxvalues.errors import ConfigError, name_list

HEADER = ("Category", "Description")


def load_descriptions(source: str) -> dict[str, str]:
    """{category: description} in the order of CATEGORIES.

    `source` is `name`, `values`, `definition` or the path of a user's file. Raises ConfigError for an unknown source
    and for a file that does not describe every category exactly once.
    """
    if source in _SOURCES:
        return {category.name: _SOURCES[source](category) for category in TAXONOMY}
    path = user_path(source)
    if not path.is_file():
        _refuse(f"`{source}` is neither one of {', '.join(_SOURCES)} nor a file")
    return read_descriptions(path, table_rows(path, HEADER, _refuse))


def read_descriptions(path: str | Path, rows: Iterable[tuple[int, str, str]]) -> dict[str, str]:
    """{category: description} in the order of CATEGORIES, from rows of (line, category, text)."""
    rows = ((line, name, " ".join(text.split())) for line, name, text in rows)
    return {name: text for name, (_, text) in rows_by_category(path, rows, "description", _refuse).items()}


def rows_by_category(
    path: str | Path, rows: Iterable[tuple[int, str, str]], what: str, refuse: ProblemHandler
) -> dict[str, tuple[int, str]]:
    """{category: (line, text)} in the order of CATEGORIES, from rows of (line, category, text).

    Calls `refuse`, which must raise, for an unknown category, a repeated category, an empty text and a missing
    category. `what` is the word for a text in these messages.
    """
    found: dict[str, tuple[int, str]] = {}
    for line, name, text in rows:
        if name not in CATEGORIES:
            near = difflib.get_close_matches(name, CATEGORIES, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"expected one of {name_list(CATEGORIES)}"
            refuse(f"{path}, line {line}: there is no category `{name}`; {hint}")
        if name in found:
            refuse(f"{path}, line {line}: the category {name} is already in line {found[name][0]}")
        if not text.strip():
            refuse(f"{path}, line {line}: the {what} of {name} is empty")
        found[name] = line, text
    if missing := [name for name in CATEGORIES if name not in found]:
        refuse(f"{path}: there is no {what} of {name_list(missing)}, expected one for each category")
    return {name: found[name] for name in CATEGORIES}


def table_rows(path: str | Path, header: Sequence[str], refuse: ProblemHandler) -> Iterator[tuple[int, str, str]]:
    """The rows (line, category, text) of a table with two columns."""
    for line, (name, (text,)) in enumerate(zip(*read_table(path, header, on_problem=refuse), strict=True), start=2):
        yield line, name, text


def _refuse(problem: str) -> NoReturn:
    raise ConfigError(f"formulation.descriptions: {problem}")


def _with_values(category: Category) -> str:
    values = (value[0].lower() + value[1:] for value in category.values)
    return f"{category.name}: {', '.join(values)}"


def _with_definition(category: Category) -> str:
    """The definition without "It is good", which all definitions begin with. That leaves more tokens for arguments."""
    return f"{category.name}: {category.description.removeprefix('It is good ').removesuffix('.')}"


_SOURCES: dict[str, Callable[[Category], str]] = {
    "name": lambda category: category.name,
    "values": _with_values,
    "definition": _with_definition,
}
