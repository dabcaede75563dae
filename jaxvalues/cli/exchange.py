"""Commands about other libraries: exports, imports, benchmarks, and the schema for editors."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from jaxvalues.cli.app import Overrides, Run, app, console, place
from jaxvalues.errors import ConfigError
from jaxvalues.run.options import Format, path_option


@app.command(short_help="Write a finished run for transformers or PEFT, or as a detector.")
def export(
    run: Run,
    target: Annotated[Path, typer.Argument(metavar="DIR", parser=path_option, help="Folder to write, new or empty.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Where things are, e.g. model.path=FOLDER.")
    ] = None,
    *,
    to: Annotated[
        Format,
        typer.Option(
            help="hf: a whole classifier, for transformers (it reads the first token of the last layer); peft: what "
            "trained, as an adapter for PEFT; detector: what trained, for `jaxvalues predict`."
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(
            metavar="HUB_NAME", help="--to detector: hub name of the base network, needed if the run read a folder."
        ),
    ] = None,
) -> None:
    """Write a finished run for other libraries: network, tokenizer, thresholds, and a card that shows how to use them.

    \b
    Example: jaxvalues export runs/roberta-base-seed0 --to hf roberta-values
             jaxvalues export runs/t5-base-bca-seed0 --to peft t5-base-bca-prompt
    """
    if base is not None and to != Format.detector:
        raise ConfigError("--base belongs to --to detector")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing is computed on a device
    match to:
        case Format.hf:
            from jaxvalues.interop.to_hf import export_hf as export_run
        case Format.peft:
            from jaxvalues.interop.to_peft import export_peft as export_run
        case Format.detector:
            from jaxvalues.interop.to_detector import export_detector

            export_run = partial(export_detector, base=base)

    export_run(run, target, overrides=tuple(overrides or ()), console=console())


@app.command("import", short_help="Make an exported run a run folder again.")
def import_(
    source: Annotated[
        Path, typer.Argument(metavar="DIR", parser=path_option, help="A folder that `jaxvalues export --to hf` wrote.")
    ],
    out: Annotated[Path, place(metavar="RUN", help="Run folder to make, new or empty.")],
) -> None:
    """Make an exported run a run folder again: same config, thresholds and scores, same predictions up to rounding.

    \b
    Example: jaxvalues import roberta-values --out runs/roberta-again
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing is computed on a device
    from jaxvalues.interop.from_hf import import_hf

    import_hf(source, out, console=console())


@app.command(short_help="Measure speed and memory, side by side with other libraries.")
def bench(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG]", parser=path_option, help="Config file (YAML).", show_default=False),
    ] = None,
    overrides: Overrides = None,
    *,
    preset: Annotated[
        str | None,
        typer.Option(
            help="compile: every way to start a step, here and in torch. sweep: learning rates together, beside one "
            "process each. feed: whether batches keep the device busy. CONFIG is not needed."
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="compile: bert-base, deberta-v3-base, t5-base, gpt2 (default: all); repeatable."),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        place("--compare", metavar="FILE", help="Two files that --json wrote, to set side by side: give it twice."),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="torch-eager (classify's default), torch-compile, torch-bf16, peft (the others' default), peft-bf16, "
            "jaxvalues-apart (every question a row of its own), jaxvalues-gather (DeBERTa), transformers (generates "
            "text), none; repeatable."
        ),
    ] = None,
    work: Annotated[
        list[str] | None,
        typer.Option(help="train, inference (default: both), or prefill and generate (text); repeatable."),
    ] = None,
    length: Annotated[
        list[int] | None, typer.Option(help="Tokens (default: the config's buckets); repeatable.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Samples of each contender; medians are over these.")] = 7,
    warmup: Annotated[int, typer.Option(help="Samples before these, which do not count.")] = 1,
    new_tokens: Annotated[int, typer.Option(help="Tokens that generate adds to every prompt.")] = 64,
    real: Annotated[bool, typer.Option("--real", help="A batch of the training split, not random tokens.")] = False,
    json_file: Annotated[Path | None, place("--json", metavar="FILE", help="Write everything measured.")] = None,
    chart: Annotated[
        Path | None, place("--chart", metavar="FILE", help="Draw the measurement, or the comparison (SVG).")
    ] = None,
) -> None:
    """Measure train step, inference, compiling and memory of a config's model, side by side with torch and PEFT.

    \b
    Example: jaxvalues bench configs/bench/roberta-base.yaml --length 48 --json bench.json
             jaxvalues bench --preset compile --network gpt2 --json after.json
             jaxvalues bench --compare before.json --compare after.json --chart bench.svg
    """
    if config is not None and "=" in config.name and not config.exists():  # no config file, but a change to a preset
        config, overrides = None, [str(config), *(overrides or ())]
    if chart is not None:
        from jaxvalues.bench.measure import check_file

        check_file("--chart", chart)
    measured = ("peer", "work", "length", "repeats", "warmup", "new_tokens", "real")
    if compare:
        _refuse_given(context, (*measured, "network", "json_file"), "--compare")
        from jaxvalues.bench.comparison import compare_results, read_result

        if len(compare) != 2 or config is not None or preset is not None:
            raise ConfigError("--compare needs two files that `jaxvalues bench --json` wrote, and nothing to measure")
        results = [read_result(file) for file in compare]
        compare_results(*results, console())
    elif preset is not None:
        _refuse_given(context, measured, f"--preset {preset}")
        from jaxvalues.bench.presets import run_preset

        words = {"file": config, "overrides": overrides or (), "networks": network or (), "json_file": json_file}
        results = [run_preset(preset, console(), **words)]
    elif config is None:
        raise ConfigError("give a config file to measure, --preset NAME, or two files to --compare")
    else:
        _refuse_given(context, ("network",), "a config file")
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
            new_tokens=new_tokens,
            real=real,
        )
        results = [run_bench(loaded, options, console(), json_file)]
    if chart is not None:
        from jaxvalues.report.bench_chart import write_chart

        write_chart(results, chart)
        console().print(f"The chart is {chart}.", highlight=False)


def _refuse_given(context: typer.Context, names: Sequence[str], mode: str) -> None:
    """Raise ConfigError for an option that was given and has no effect in a mode of `bench`."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "json" if name == "json_file" else name.replace("_", "-")
            raise ConfigError(f"--{option} has no effect with {mode}")


@app.command(short_help="Print the JSON Schema of config files.")
def schema(
    study: Annotated[bool, typer.Option("--study", help="That of study files.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a list of all keys instead.")] = False,
) -> None:
    """Print the JSON Schema of config files, for completion and checks in editors.

    \b
    Example: jaxvalues schema > jaxvalues.schema.json
             jaxvalues schema --study --markdown
    """
    if study:
        from jaxvalues.study.reference import study_reference as reference
        from jaxvalues.study.schema import Study

        of_editors = Study.model_json_schema
    else:
        from jaxvalues.config import json_schema as of_editors
        from jaxvalues.config import markdown_reference as reference
    print(reference() if markdown else json.dumps(of_editors(), indent=2) + "\n", end="")
