"""Writes the report of a study: a page, Markdown, tables and figures."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, select_autoescape

from jaxvalues.config.writing import write_whole, writing
from jaxvalues.report.browser import browse
from jaxvalues.report.figures import pictures
from jaxvalues.report.paper import three_questions
from jaxvalues.report.table import markdown
from jaxvalues.report.tables import tables
from jaxvalues.report.words import answers, basis, nothing
from jaxvalues.study.results import StudyResults

PAGE, TEXT = "report.html", "report.md"
_FIRST = ("systems", "contrasts")  # tables that stand above the figures; the others follow them
_ENVIRONMENT = ("python", "jaxvalues", "jax", "jaxlib", "flax", "optax", "numpy", "device", "devices", "platform")


def write_report(results: StudyResults, folder: Path, *, with_texts: bool = False) -> Path:
    """Write report.html, report.md, tables/ and figures/ into a folder; returns the page.

    The page needs no other file and no network. `with_texts` puts the texts of arguments into it, which are under
    CC BY-SA 4.0.
    """
    found, drawn = tables(results), pictures(results)
    content = {
        "study": results.study,
        "results": results,
        "answers": answers(results),
        "basis": basis(results) if results.contrasts else "",
        "nothing": nothing(results),
        "first": [one for one in found if one.name in _FIRST],
        "rest": [one for one in found if one.name not in _FIRST],
        "pictures": drawn,
        "questions": three_questions(results),
        "browser": browse(results, with_texts=with_texts),
        "with_texts": with_texts,
        "environment": _shown(results.environment),
    }
    with writing(folder):
        for name in ("tables", "figures"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for one in drawn:
            (folder / "figures" / f"{one.name}.png").write_bytes(one.png)
    for table in found:
        write_whole(folder / "tables" / f"{table.name}.csv", table.to_csv())
        write_whole(folder / "tables" / f"{table.name}.tex", table.to_latex())
    for one in drawn:
        write_whole(folder / "figures" / f"{one.name}.svg", one.svg)
    _remove_stale(folder / "tables", (".csv", ".tex"), {one.name for one in found})
    _remove_stale(folder / "figures", (".svg", ".png"), {one.name for one in drawn})
    environment = _templates()
    write_whole(folder / TEXT, environment.get_template("report.md.j2").render(content))
    write_whole(folder / PAGE, environment.get_template("report.html.j2").render(content))
    return folder / PAGE


def _remove_stale(folder: Path, suffixes: tuple[str, ...], written: Collection[str]) -> None:
    """Remove the tables or figures of an earlier report that this one no longer has. Other files stay."""
    with writing(folder):
        for path in folder.iterdir():
            if path.suffix in suffixes and path.stem not in written and _OURS.fullmatch(path.stem):
                path.unlink()


_OURS = re.compile(
    "(systems|contrasts|trials|paper|learning|embeddings)"
    "|(forest|scores|parameters|seconds|calibration|circle|categories|variance|shots|spread)-.+"
)
"""The names of tables and figures."""


def _templates() -> Environment:
    """Jinja2 with the templates of this package; an unknown name is an error."""

    def load(name: str) -> str:
        return (files("jaxvalues.report") / "templates" / name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(load),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = markdown
    return environment


def _shown(environment: dict[str, Any], within: str = "") -> dict[str, str]:
    """The versions and devices of an environment.json, {name: value}, without files and hashes."""
    found: dict[str, str] = {}
    for key, value in environment.items():
        if isinstance(value, dict):
            found |= _shown(value, key)
        elif key in _ENVIRONMENT or within in ("versions", "packages"):
            found[key] = str(value)
    return found
