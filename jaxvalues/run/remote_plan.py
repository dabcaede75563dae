"""What a run would ask an endpoint, before anything is sent: `train --dry-run`, `show`, and batch files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxvalues.config import Config
from jaxvalues.config.reading import os_problem
from jaxvalues.config.writing import check_writable, write_whole, writing
from jaxvalues.data.held_out import HELD_OUT, Parts
from jaxvalues.data.task import TASKS
from jaxvalues.errors import ConfigError, UserError, counted
from jaxvalues.remote.batches import Read, batch_lines, read_results
from jaxvalues.remote.budget import Budget
from jaxvalues.remote.client import TOO_LONG, check_installed
from jaxvalues.remote.formulations import make_remote
from jaxvalues.remote.key import KEY, api_key
from jaxvalues.remote.messages import Request
from jaxvalues.remote.probe import Found, recall
from jaxvalues.remote.rounds import Pending, pending
from jaxvalues.remote.session import find_in
from jaxvalues.remote.store import AnswerStore, Contents, read_store
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.remote import Inputs, all_rounds, load_inputs, store_path
from jaxvalues.run.resolve import resolve

_BEGINNING = b'{"custom_id": '


def plan(config: Config, inputs: Inputs, found: Found, contents: Contents) -> Pending:
    """What a run would ask, each request once."""
    questions = make_remote(config, inputs.template, found, inputs.examples)
    rounds = all_rounds(config, inputs, questions)
    all_of = [pending(one, contents, questions.number_of_rounds) for one in rounds]
    return Pending(
        *(list({r.key: r for one in all_of for r in getattr(one, name)}.values()) for name in Pending._fields)
    )


def dry_run_remote(config: Config, run_console: RunConsole) -> None:
    """Check what can be checked without the endpoint, and say how much would be asked. Sends and writes nothing."""
    check_installed()
    inputs, model = load_inputs(config), config.model
    state = RunFolder(config.folder, TASKS[config.data.task]).check(config, inputs.record)
    contents = read_store(store_path(config))
    known = recall(contents, model.endpoint, model.id)
    planned = plan(config, inputs, known or Found(), contents)
    say = run_console.print
    say(f"{model.id} at {model.endpoint}" + ("" if api_key() else f"; {KEY} is not set, so no key would be sent"))
    to_send = [*planned.missing, *planned.later]
    have = "has" if len(planned.stored) == 1 else "have"
    say(
        f"{counted(len(planned.stored) + len(to_send), 'request')}: {len(planned.stored):,} {have} an answer in "
        f"{store_path(config)}, {len(planned.missing):,} would be sent"
        + ("" if known is not None else ", after one or two test requests")
        + (f", and then about {len(planned.later):,} that depend on their answers" if planned.later else "")
    )
    _say_estimate(config, planned, contents, known is None, run_console)
    say(f"{config.folder}: {state}")


def _say_estimate(config: Config, planned: Pending, contents: Contents, probes: bool, run_console: RunConsole) -> None:
    """Say what all that is not answered takes, and where the budget is not enough for it.

    What was asked before counts, and a test request where the endpoint is not known yet (`probes`).
    """
    model, to_send = config.model, [*planned.missing, *planned.later]
    budget = Budget(model)
    budget.requests = contents.probes[model.endpoint, model.id] + probes
    for one in (*planned.stored, *planned.too_long, *to_send):
        budget.already(one, contents.failed.get(one.key, 0), contents.answers.get(one.key))
    quoted = "; answers that are quoted count in full length" if planned.later else ""
    run_console.print(_estimate(budget, to_send) + quoted)
    if model.max_requests is not None and model.max_requests < budget.requests + len(to_send):
        run_console.print(f"WARNING: model.max_requests {model.max_requests:,} is not enough for all of them")


def _estimate(budget: Budget, requests: Sequence[Request]) -> str:
    """What requests take, besides what a budget has counted already."""
    prompts, answers, cost = budget.estimate(requests)
    said = f"an estimate: {prompts:,} tokens of prompts, at most {answers:,} of answers"
    if cost is None:
        return f"{said}; model.remote.input_price and output_price, of a million tokens, would give the cost"
    said += f", {cost:,.2f} at the prices of the config"
    enough = budget.max_cost is None or budget.max_cost >= budget.cost + cost
    return said if enough else f"{said}: model.max_cost {budget.max_cost:g} may not be enough"


def remote_rows(config: Config, parts: Parts | None) -> Iterator[tuple[str, str]]:
    """What `jaxvalues show` says about a run at an endpoint, as (name, text)."""
    model, form = config.model, config.formulation
    yield "model", f"{model.id} at {model.endpoint}"
    yield "task", f"{config.data.task}, by formulation {form.kind}, template {form.template}"
    yield "trains", "nothing"
    if form.kind != "label_list":
        votes = f"votes of {model.remote.samples} answers"
        yield "logits", votes if model.remote.scoring == "votes" else "log-probabilities of the first token"
    source = config.data.dir or config.data.source
    if parts is None:
        yield "data", f"{source}, not here yet: `jaxvalues data CONFIG` fetches it"
        return
    sizes = {HELD_OUT: parts.held_out} | {split.name: split for split in parts.reported}
    yield "data", f"{source}: " + ", ".join(f"{name} {len(split):,}" for name, split in sizes.items())
    yield "requests", "`jaxvalues train CONFIG --dry-run` counts them, and estimates tokens and cost"
    yield "answers", str(store_path(config))


def write_batches(config: Config, folder: Path, run_console: RunConsole) -> list[Path]:
    """Write what a run would ask as batch files. Returns their paths; none where all is answered.

    An endpoint that is asked for the first time is sent a request or two, which find out what it can do.
    """
    config = _single(config)
    check_writable(folder, "the folder of batch files")
    inputs, model = load_inputs(config), config.model
    with AnswerStore(store_path(config), api_key()) as store:
        found = find_in(store, model, Budget(model))
        contents = store.contents
        planned = plan(config, inputs, found, contents)
    files = []
    for number, lines in enumerate(batch_lines(planned.missing), start=1):
        files.append(folder / f"{config.name}-{number:02}.jsonl")
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(files[-1], "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        run_console.print(f"{files[-1]}: {counted(len(lines), 'request')}")
    for stale in _batch_files(folder, config.name, len(files) + 1):
        with writing(stale):
            stale.unlink()
        run_console.print(f"{stale}: removed, as its requests are in the other files or have an answer")
    if not files:
        run_console.print(f"all {len(planned.stored):,} requests have an answer: `jaxvalues train` needs no request")
        return []
    _say_estimate(config, planned, contents, False, run_console)
    run_console.print(
        "Upload them as batches for /v1/chat/completions, and give the results to `jaxvalues batch read`"
        + ("." if not planned.later else "; then write again: later requests depend on these answers.")
    )
    return files


def _batch_files(folder: Path, name: str, first: int) -> list[Path]:
    """The batch files of a name that were written with a number from `first` on."""
    numbers = ((path, path.stem.removeprefix(f"{name}-")) for path in sorted(folder.glob("*.jsonl")))
    files = [path for path, number in numbers if path.name == f"{name}-{number}.jsonl" and _is_from(number, first)]
    return [path for path in files if path.is_file() and _begins_a_batch(path)]


def _begins_a_batch(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_BEGINNING)) == _BEGINNING
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({os_problem(error)})") from None


def _is_from(number: str, first: int) -> bool:
    return number.isascii() and number.isdecimal() and int(number) >= first and number == f"{int(number):02}"


def read_batches(config: Config, files: list[Path], run_console: RunConsole) -> Read:
    """Put the results of batch files into the store of a run. Raises UserError where none of them belongs to it."""
    config = _single(config)
    inputs, model = load_inputs(config), config.model
    with AnswerStore(store_path(config), api_key()) as store:
        found = recall(store.contents, model.endpoint, model.id)
        if found is None:
            raise UserError(f"{store.path} knows nothing of {model.endpoint}: `jaxvalues batch write` comes first")
        planned = plan(config, inputs, found, store.contents)
        known = [*planned.stored, *planned.too_long]
        read = read_results(files, missing=planned.missing, stored=known, found=found, store=store)
    for sentence in read.sentences(store.path):
        run_console.print(sentence)
    if not read.added and not read.known and not read.failed[TOO_LONG]:
        raise UserError(f"no result in {files[0]} answers a request of this config and its endpoint")
    return read


def _single(config: Config) -> Config:
    """The resolved config of one run at an endpoint. Raises ConfigError for others."""
    if config.model.endpoint is None:
        raise ConfigError("batch files are for a model that is served elsewhere: set model.endpoint=URL")
    if config.is_ensemble:
        raise ConfigError("batch files are of one run: remove `ensemble` and data.folds, or set data.fold and seed")
    return resolve(config)
