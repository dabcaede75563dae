"""Commands about single runs: their data, what they take, training, prediction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaxvalues.cli.app import ConfigFile, Overrides, app, console, place
from jaxvalues.errors import ConfigError
from jaxvalues.run.options import Table, path_option
from jaxvalues.run.shipped import shipped_detector

if TYPE_CHECKING:
    from rich.console import Console

    from jaxvalues.config import Config


@app.command(short_help="Fetch the data set, or check a folder, and say what is there.")
def data(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", parser=path_option, help="Config that names the data.")
    ] = None,
    overrides: Overrides = None,
    dir: Annotated[Path | None, place(metavar="FOLDER", help="A folder of TSV files.")] = None,
) -> None:
    """Fetch the data set, or check a folder of its files, and print what is there; exit 1 if anything is wrong.

    \b
    Example: jaxvalues data --dir valueeval23
    """
    from jaxvalues.data.describe import describe, describe_folder, render

    if dir is not None:
        summary = describe_folder(dir)
    elif config is not None:
        from jaxvalues.config import load_config

        settings = load_config(config, overrides or ()).data
        summary = describe(settings.source, settings.dir)
    else:
        raise ConfigError("give a config file, or --dir FOLDER")
    render(summary, console())
    if summary.problems:
        raise typer.Exit(1)


@app.command(short_help="Say what a config trains, on what, and what it takes.")
def show(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="Print the whole config, too, with all defaults.")] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the training step and ask the compiler for its memory (minutes).")
    ] = False,
) -> None:
    """Print what a config trains, on what, and estimates of work, memory and steps; reads no weights.

    \b
    Example: jaxvalues show configs/paper/roberta-large-multi-head.yaml model.path=roberta-large
             jaxvalues show configs/bench/t5-11b-prompt.yaml --compile
    """
    from jaxvalues.config import load_config

    loaded = load_config(config, overrides or ())
    from jaxvalues.run.show import show as run_show

    run_show(loaded, console(), full, compiled)


@app.command(short_help="Train, from config to scores; resumes what was stopped.")
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all that can be checked, weights included; write nothing.")
    ] = False,
) -> None:
    """Train one run, from config to scores; resumes an unfinished run of the same config.

    With data.folds, or an ensemble in the config: several runs one after another, and their combination.

    \b
    Example: jaxvalues train configs/minilm.yaml data.dir=valueeval23 model.path=minilm seed=1
    """
    from jaxvalues.config import load_config

    loaded, screen = load_config(config, overrides or ()), console()
    if dry_run:
        from jaxvalues.ensemble.training import check

        check(loaded, screen)
        return
    from jaxvalues.ensemble import train as run

    run(loaded, screen)
    _say_how_to_export(loaded, screen)


def _say_how_to_export(config: Config, screen: Console) -> None:
    """The last line of a run that another library can read: how to write it for that library."""
    from jaxvalues.interop.exportable import export_command
    from jaxvalues.training.processes import is_main

    if is_main() and not config.is_ensemble and (command := export_command(config.folder)):
        screen.print(f"Export: {command}", highlight=False, soft_wrap=True)


@app.command(short_help="Predict a split, or arguments of your own, with a finished run or a detector.")
def predict(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Folder of a finished run, or of a detector.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changed paths or devices, e.g. data.dir=FOLDER mesh.fsdp=2."),
    ] = None,
    *,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="In the place of RUN: a detector that comes with jaxvalues.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="A split of the run's data, e.g. test.")] = None,
    input: Annotated[
        Path | None, place(metavar="FILE", help="Your own arguments: CSV or TSV with a column Premise.")
    ] = None,
    format: Annotated[
        Table,
        typer.Option(
            help="Of --input: wide, a row per argument; long, a row per argument and value; or json. Your columns stay."
        ),
    ] = Table.wide,
    out: Annotated[
        Path | None, place(metavar="DIR", help="Where to write (default: RUN; NAME-predictions for a detector).")
    ] = None,
) -> None:
    """Predict a split, or a file of your own arguments, with a finished run or a detector; scores it if there are
    labels.

    A detector needs its base network: from the Hugging Face hub, or from a folder of it, model.path=FOLDER.

    \b
    Example: jaxvalues predict runs/minilm-seed0 --split test
             jaxvalues predict runs/minilm-seed0 --input my-arguments.csv --out found
    """
    words = [*([] if run is None else [run]), *(overrides or ())]
    if model is not None:
        if words and "=" not in words[0]:
            raise ConfigError("give either RUN or --model, not both")
        run = shipped_detector(model)
    elif not words or ("=" in words[0] and not Path(words[0]).exists()):
        raise ConfigError("give RUN, the folder of a finished run, or --model NAME")
    else:
        run = path_option(words.pop(0))
    file = None
    if input is not None and split is None:
        from jaxvalues.data.user_file import read_user_file

        file = read_user_file(input)  # before JAX is imported: what is wrong with it shows at once
    from jaxvalues.run.predict import predict as run_predict

    where = {"out": out, "overrides": tuple(words), "console": console()}
    run_predict(run, split=split, file=file or input, format=format.value, **where)
