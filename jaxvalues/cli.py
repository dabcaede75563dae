"""The command line. Every command says on `--help` what it is for, with an example; heavy imports come late."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from jaxvalues.errors import ConfigError, UserError, fail, leave, print_everything
from jaxvalues.run.options import Format, Method, Table, number_option, path_option

if TYPE_CHECKING:
    from jaxvalues.config import Config

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


_place = partial(typer.Option, parser=path_option)
_Run = Annotated[Path, typer.Argument(metavar="RUN", parser=path_option, help="Folder of a finished run.")]
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


@app.command(short_help="Fetch the data set, or check a folder, and say what is there.")
def data(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", parser=path_option, help="Config whose data is meant.")
    ] = None,
    overrides: Overrides = None,
    dir: Annotated[Path | None, _place(metavar="FOLDER", help="A folder of TSV files.")] = None,
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


@app.command(short_help="Train, from config to scores; resumes what was stopped.")
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all that can be checked, weights included; write nothing.")
    ] = False,
) -> None:
    """Train one run, from config to scores; resumes where it was if the run folder holds it.

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


@app.command(short_help="Combine finished runs.")
def ensemble(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", parser=path_option, help="Folders of finished runs or ensembles."),
    ],
    out: Annotated[Path, _place(metavar="DIR", help="Folder to write.")],
    method: Annotated[
        Method, typer.Option(help="Mean probability, or a logistic regression per category.")
    ] = Method.mean,
    dir: Annotated[Path | None, _place(metavar="FOLDER", help="Folder of the data, if not where the runs say.")] = None,
) -> None:
    """Combine finished runs: folds of one system are joined, decisions are tuned on what every system held out.

    \b
    Example: jaxvalues ensemble runs/minilm-seed0 runs/minilm-seed1 --out runs/minilm-ensemble
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing is computed on a device, and a training run may hold it
    from jaxvalues.ensemble import combine_runs

    combine_runs(runs, out, method=method.value, dir=dir, console=console())


@app.command(short_help="Predict a split, or arguments of your own, with a finished run.")
def predict(
    run: _Run,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Where it runs, e.g. data.dir=FOLDER mesh.fsdp=2.")
    ] = None,
    *,
    split: Annotated[str | None, typer.Option(help="A split of the run's data, e.g. test.")] = None,
    input: Annotated[
        Path | None, _place(metavar="FILE", help="Your own arguments: CSV or TSV with a column Premise.")
    ] = None,
    format: Annotated[
        Table,
        typer.Option(help="Of --input: a row per argument, a row per argument and value, or JSON. Your columns stay."),
    ] = Table.wide,
    out: Annotated[Path | None, _place(metavar="DIR", help="Where to write (default: RUN).")] = None,
) -> None:
    """Predict a split, or a file of your own arguments, with a finished run; scores it if there are labels.

    \b
    Example: jaxvalues predict runs/minilm-seed0 --split test
             jaxvalues predict runs/minilm-seed0 --input my-arguments.csv --out found
    """
    file = None
    if input is not None and split is None:
        from jaxvalues.data.user_file import read_user_file

        file = read_user_file(input)  # before JAX is imported: what is wrong with it shows at once
    from jaxvalues.run.predict import predict as run_predict

    where = {"out": out, "overrides": tuple(overrides or ()), "console": console()}
    run_predict(run, split=split, file=file or input, format=format.value, **where)


@app.command(short_help="Score run files with the official score; compare several.")
def score(
    truth: Annotated[Path, _place(metavar="LABELS.tsv", help="Labels file.")],
    run: Annotated[list[Path], _place(metavar="PREDICTIONS.tsv", help="Run file, or probabilities; repeatable.")],
    threshold: Annotated[
        float | None, typer.Option(metavar="NUMBER", parser=number_option, help="Decides probabilities.")
    ] = None,
    arguments: Annotated[
        Path | None,
        _place(metavar="ARGUMENTS.tsv", help="Arguments of the truth: intervals then resample conclusions."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Score run files with the official score of Touché23-ValueEval; files are read as its evaluator reads them.

    Columns are found by name. A category without a column counts as never predicted, an argument without a row as
    having no category.

    With --arguments, the official F1 has a 95 % interval. With several --run, every two runs are compared: difference,
    interval, and p by permutation. Without --arguments these take arguments as independent, which they are not.

    \b
    Example: jaxvalues score --truth labels-test.tsv --run runs/minilm-seed0/predictions-test.tsv
             jaxvalues score --truth labels-test.tsv --run a.tsv --run b.tsv --arguments arguments-test.tsv
    """
    from jaxvalues.evaluation.report_table import render_comparison, render_scores

    screen = console()
    if len(run) == 1:
        from jaxvalues.evaluation.scoring import score_files

        result = score_files(truth, run[0], threshold, arguments)
        if not as_json:
            render_scores({run[0].stem: result.scores}, screen)
    else:
        from jaxvalues.evaluation.comparison import compare_files

        result = compare_files(truth, run, threshold, arguments)
        if not as_json:
            render_comparison(result, screen)
    if as_json:
        print(json.dumps(result.to_json(), indent=2))
        return
    for note in result.notes:
        screen.print(note, highlight=False)


@app.command(short_help="Plan, run and resume a study: many runs that answer one question.")
def compare(
    study: Annotated[Path, typer.Argument(metavar="STUDY", parser=path_option, help="Study file (YAML).")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes to the study, or to the config of all systems."),
    ] = None,
    *,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would run; run and write nothing.")] = False,
    part: Annotated[
        str, typer.Option(metavar="I/N", help="Run this share of the runs, for several machines on one folder.")
    ] = "1/1",
) -> None:
    """Plan, run and resume a study, and write its results. Finished runs are kept; the same command goes on.

    Exit code 0 means that all of the study, or of this part, is finished.

    \b
    Example: jaxvalues compare configs/studies/quickstart.yaml
             jaxvalues compare configs/studies/methods-minilm.yaml data.dir=valueeval23 model.path=minilm --plan
    """
    from jaxvalues.study.files import load_study

    loaded, screen = load_study(study, tuple(overrides or ())), console()
    from jaxvalues.study.compare import compare as run_compare
    from jaxvalues.study.compare import parse_share

    finished, results = run_compare(loaded, screen, share=parse_share(part), only_plan=plan)
    if results is not None:
        from jaxvalues.report import write_report

        page = write_report(results, loaded.folder)
        screen.print(f"\nThe report is {page}", highlight=False, soft_wrap=True)
    if not finished:
        raise typer.Exit(1)


@app.command(short_help="Make the report of a study, a run or an ensemble again.")
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", parser=path_option, help="Folder of a study, or of a finished run.")
    ],
    *,
    with_texts: Annotated[
        bool, typer.Option("--with-texts", help="Put the texts of arguments into the page; they are under CC BY-SA.")
    ] = False,
) -> None:
    """Make the report of a study again, or that of a single run or ensemble, from what is finished. Trains nothing.

    \b
    Example: jaxvalues report studies/quickstart
             jaxvalues report runs/minilm-seed0 --with-texts
    """
    from jaxvalues.report import write_report
    from jaxvalues.study.compare import results_of

    page = write_report(results_of(folder), folder, with_texts=with_texts)
    console().print(f"The report is {page}", highlight=False, soft_wrap=True)


@app.command(short_help="Say what a config trains, on what, and what it takes.")
def show(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="The whole config besides, with every default.")] = False,
) -> None:
    """Print what a config trains, on what, and estimates of work, memory and steps; reads no weights, compiles nothing.

    \b
    Example: jaxvalues show configs/paper/roberta-large-multi-head.yaml model.path=roberta-large
    """
    from jaxvalues.config import load_config

    loaded = load_config(config, overrides or ())
    from jaxvalues.run.show import show as run_show

    run_show(loaded, console(), full)


@app.command(short_help="Measure speed and memory, side by side with other libraries.")
def bench(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="torch-eager (classify's default), torch-compile, torch-bf16, peft (the others' default), peft-bf16, "
            "jaxvalues-apart (every question a row of its own), jaxvalues-gather (DeBERTa), none; repeatable."
        ),
    ] = None,
    work: Annotated[list[str] | None, typer.Option(help="train, inference (default: both); repeatable.")] = None,
    length: Annotated[
        list[int] | None, typer.Option(help="Tokens (default: the config's buckets); repeatable.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Samples of each contender; medians are over these.")] = 7,
    warmup: Annotated[int, typer.Option(help="Samples before those, thrown away.")] = 1,
    real: Annotated[bool, typer.Option("--real", help="A batch of the training split, not random tokens.")] = False,
    json_file: Annotated[Path | None, _place("--json", metavar="FILE", help="Write everything measured.")] = None,
) -> None:
    """Measure train step, inference, compiling and memory of a config's model, side by side with torch and PEFT.

    \b
    Example: jaxvalues bench configs/bench/roberta-base.yaml --length 48 --json bench.json
    """
    from jaxvalues.config import load_config

    loaded = load_config(config, overrides or ())
    from jaxvalues.bench.measure import WORK, Options
    from jaxvalues.bench.measure import bench as run_bench

    options = Options(
        peers=tuple(peer or ()),
        work=tuple(work or WORK),
        lengths=tuple(length or ()),
        repeats=repeats,
        warmup=warmup,
        real=real,
    )
    run_bench(loaded, options, console(), json_file)


@app.command(short_help="Write a finished run for transformers or PEFT.")
def export(
    run: _Run,
    target: Annotated[Path, typer.Argument(metavar="DIR", parser=path_option, help="Folder to write, new or empty.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Where things are, e.g. model.path=FOLDER.")
    ] = None,
    *,
    to: Annotated[
        Format,
        typer.Option(help="hf: a classifier as a whole, for transformers; peft: what trained, as an adapter for PEFT."),
    ],
) -> None:
    """Write a finished run for other libraries: network, tokenizer, thresholds, and a card that shows how to use them.

    \b
    Example: jaxvalues export runs/minilm-seed0 --to hf minilm-values
             jaxvalues export runs/t5-base-bca-seed0 --to peft t5-base-bca-prompt
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing is computed on a device
    match to:
        case Format.hf:
            from jaxvalues.interop.to_hf import export_hf as export_run
        case Format.peft:
            from jaxvalues.interop.to_peft import export_peft as export_run

    export_run(run, target, overrides=tuple(overrides or ()), console=console())


@app.command("import", short_help="Make an exported run a run folder again.")
def import_(
    source: Annotated[
        Path, typer.Argument(metavar="DIR", parser=path_option, help="A folder that `jaxvalues export --to hf` wrote.")
    ],
    out: Annotated[Path, _place(metavar="RUN", help="Run folder to make, new or empty.")],
) -> None:
    """Make an exported run a run folder again, with the same predictions, thresholds, config and scores.

    \b
    Example: jaxvalues import minilm-values --out runs/minilm-again
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing is computed on a device
    from jaxvalues.interop.from_hf import import_hf

    import_hf(source, out, console=console())


@app.command(short_help="Print the JSON Schema of config files.")
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/configuration.md instead.")] = False,
) -> None:
    """Print the JSON Schema of config files, for completion and checks in editors.

    \b
    Example: jaxvalues schema > jaxvalues.schema.json
    """
    from jaxvalues.config import json_schema, markdown_reference

    print(markdown_reference() if markdown else json.dumps(json_schema(), indent=2), end="" if markdown else "\n")


def main() -> None:
    """Entry point: user errors become one sentence, without a traceback, and the exit code they ask for."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it advises torch, which nothing here needs
    print_everything(sys.stdout, sys.stderr)
    try:
        try:
            app(prog_name="jaxvalues")
        finally:
            sys.stdout.flush()
    except UserError as error:
        fail(str(error), error.exit_code)
    except OSError as error:  # a full disk, a read-only folder, a pipe that nobody reads
        with open(os.devnull, "w") as nowhere, suppress(OSError, ValueError):
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # the interpreter flushes what is left as it ends
        fail(": ".join(filter(None, (str(error.filename or ""), error.strerror or str(error)))), UserError.exit_code)
    except (KeyboardInterrupt, SystemExit) as error:
        if not _is_interrupt(error):
            raise
        fail("interrupted", 1)
    except Exception as error:
        leave(f"{type(error).__name__}: {error}", 1, error)
        raise


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether an error is Ctrl-C, which Typer makes an exit with some code."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
