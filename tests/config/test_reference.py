"""docs/configuration.md says what the schema says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, Field
from typer.testing import CliRunner

from jaxvalues.cli import app
from jaxvalues.config import Config, Section, markdown_reference
from jaxvalues.study.reference import study_reference
from jaxvalues.study.schema import Combined, Contrast, Study

DOCS = Path(__file__).parents[2] / "docs"
FILE = DOCS / "configuration.md"


def sections(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A section and all sections inside it."""
    yield kind
    for field in kind.model_fields.values():
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from sections(inner)


def test_the_file_is_up_to_date() -> None:
    command = "run `jaxvalues schema --markdown > docs/configuration.md`"
    assert FILE.read_text(encoding="utf-8") == markdown_reference(), command


def test_that_of_studies_is_up_to_date_and_whole() -> None:
    command = "run `jaxvalues schema --study --markdown > docs/studies.md`"
    text = study_reference()
    assert (DOCS / "studies.md").read_text(encoding="utf-8") == text, command
    assert CliRunner().invoke(app, ["schema", "--study", "--markdown"]).stdout == text
    for section in (*sections(Study), Combined, Contrast):
        for key in section.model_fields:
            assert f"| `{key}` |" in text
    assert "| `question` | string | needed |" in text
    assert "| `changes` | mapping |  |" in text


def test_the_command_prints_it() -> None:
    result = CliRunner().invoke(app, ["schema", "--markdown"])
    assert (result.exit_code, result.stdout) == (0, markdown_reference())


def test_every_key_is_documented_and_listed() -> None:
    text = markdown_reference()
    assert len(list(sections(Config))) == 21  # and with it the loop below is not empty
    for section in sections(Config):
        for key, field in section.model_fields.items():
            is_section = any(
                isinstance(inner, type) and issubclass(inner, BaseModel)
                for inner in (field.annotation, *getattr(field.annotation, "__args__", ()))
            )
            assert field.description or is_section, f"{section.__name__}.{key} has no docstring"
            assert f"| `{key}` |" in text


class Inner(Section):
    """What is inside."""

    tags: tuple[str, ...] | None = None
    """A | and a line
    break."""


class Outer(Section):
    """What is outside."""

    rate: float = Field(0.5, gt=0, le=1)
    """A share."""
    inner: Inner = Inner()
    maybe: Inner | None = None
    """It may be absent."""


def test_types_bounds_defaults_and_sections() -> None:
    lines = markdown_reference(Outer).splitlines()
    assert "| `rate` | number > 0, ≤ 1 | `0.5` | A share. |" in lines
    assert "| `inner` | section |  | What is inside. |" in lines
    assert "| `maybe` | section or null | `null` | It may be absent. |" in lines
    assert lines[lines.index("## `inner`") + 2] == "What is inside."
    assert "| `tags` | list of string or null | `null` | A \\| and a line break. |" in lines
