"""The application that commands register with, and what they share: options, and the console they print on."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from jaxvalues.run.options import path_option

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


place = partial(typer.Option, parser=path_option)
Run = Annotated[Path, typer.Argument(metavar="RUN", parser=path_option, help="Folder of a finished run.")]
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", parser=path_option, help="Config file (YAML).")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes, e.g. optimizer.learning_rate=1e-4.")
]


def console() -> Console:
    """Where commands print; a pipe or a file gets 120 columns. Texts stand as they are: [brackets] are no markup."""
    columns = os.environ.get("COLUMNS", "")
    width = None if sys.stdout.isatty() else int(columns) if columns.isdecimal() and 0 < int(columns) < 10_000 else 120
    return Console(width=width, markup=False, emoji=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"jaxvalues {version('jaxvalues')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Detect human values behind arguments: fine-tune, predict, score and compare, from config files."""
