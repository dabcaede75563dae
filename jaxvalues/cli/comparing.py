"""Commands about several runs: ensembles, scores, studies and reports."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from jaxvalues.cli.app import app, console, place
from jaxvalues.run.options import Method, number_option, path_option


@app.command(short_help="Combine finished runs.")
def ensemble(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", parser=path_option, help="Folders of finished runs or ensembles."),
    ],
    out: Annotated[Path, place(metavar="DIR", help="Folder to write.")],
    method: Annotated[
        Method, typer.Option(help="Mean probability, or a logistic regression per category.")
    ] = Method.mean,
    dir: Annotated[Path | None, place(metavar="FOLDER", help="Folder of the data, if not where the runs say.")] = None,
) -> None:
    """Combine finished runs: folds of one system are joined; thresholds are tuned on the arguments that all held out.

    \b
    Example: jaxvalues ensemble runs/minilm-seed0 runs/minilm-seed1 --out runs/minilm-ensemble
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing is computed on a device, and a training run may hold it
    from jaxvalues.ensemble import combine_runs

    combine_runs(runs, out, method=method.value, dir=dir, console=console())


@app.command(short_help="Score run files with the official score; compare several.")
def score(
    truth: Annotated[Path, place(metavar="LABELS.tsv", help="Labels file.")],
    run: Annotated[list[Path], place(metavar="PREDICTIONS.tsv", help="Run file, or probabilities; repeatable.")],
    threshold: Annotated[
        float | None, typer.Option(metavar="NUMBER", parser=number_option, help="Of probabilities: from here on, yes.")
    ] = None,
    arguments: Annotated[
        Path | None,
        place(metavar="ARGUMENTS.tsv", help="Arguments of the truth: intervals then resample conclusions."),
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
    """Plan, run and resume a study, and write its results. The same command resumes it: finished runs are kept.

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
    dir: Annotated[Path | None, place(metavar="FOLDER", help="The folder of the data, if it has moved.")] = None,
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
    from jaxvalues.study.compare import results_of, write_results
    from jaxvalues.study.files import STUDY

    results = results_of(folder, dir)
    if (folder / STUDY).is_file():
        write_results(results, folder)
    page = write_report(results, folder, with_texts=with_texts)
    console().print(f"The report is {page}", highlight=False, soft_wrap=True)
