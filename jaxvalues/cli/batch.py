"""Commands about batch files: what a run at an endpoint asks, sent by the batch service of its provider."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxvalues.cli.app import ConfigFile, Overrides, app, console
from jaxvalues.run.options import path_option

batch = typer.Typer(
    no_args_is_help=True, help="Batch files for an endpoint: most providers answer them at half the price."
)
app.add_typer(batch, name="batch", short_help="Ask an endpoint by batch files.")


@batch.command(short_help="Write what a run would ask as batch files.")
def write(
    config: ConfigFile,
    folder: Annotated[Path, typer.Argument(metavar="DIR", parser=path_option, help="Folder of the batch files.")],
    overrides: Overrides = None,
) -> None:
    """Write what a run would ask as batch files in the OpenAI format, of at most 50,000 requests each.

    \b
    Example: jaxvalues batch write configs/llm/remote.yaml batches model.id=gpt-4.1-mini data.dir=valueeval23
    """
    from jaxvalues.config import load_config

    loaded = load_config(config, overrides or ())
    from jaxvalues.run.console import RunConsole
    from jaxvalues.run.remote_plan import write_batches

    write_batches(loaded, folder, RunConsole(console()))


@batch.command(short_help="Put the results of batch files into a run's answers.")
def read(
    config: ConfigFile,
    results: Annotated[
        list[str], typer.Argument(metavar="RESULTS.jsonl... [KEY=VALUE]...", help="Files of results, then changes.")
    ],
) -> None:
    """Put the results of batch files into the answers of a run, so that `jaxvalues train` does not ask these.

    Failed results are counted; `jaxvalues train` sends their requests again.

    \b
    Example: jaxvalues batch read configs/llm/remote.yaml results.jsonl model.id=gpt-4.1-mini data.dir=valueeval23
    """
    from jaxvalues.config import load_config

    files = [path_option(word) for word in results if "=" not in word or Path(word).is_file()]
    overrides = [word for word in results if "=" in word and not Path(word).is_file()]
    if not files:
        raise typer.BadParameter("give at least one file of results")
    loaded = load_config(config, overrides)
    from jaxvalues.run.console import RunConsole
    from jaxvalues.run.remote_plan import read_batches

    read_batches(loaded, files, RunConsole(console()))
