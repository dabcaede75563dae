"""What a run would ask an endpoint, before anything is sent: `train --dry-run`, `show`, and batch files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxvalues.config import Config
from jaxvalues.config.writing import check_writable, write_whole
from jaxvalues.data.held_out import HELD_OUT, Parts
from jaxvalues.data.task import TASKS
from jaxvalues.errors import ConfigError, UserError, counted
from jaxvalues.remote.batches import Read, batch_lines, read_results
from jaxvalues.remote.budget import Budget
from jaxvalues.remote.client import check_installed
from jaxvalues.remote.formulations import make_remote
from jaxvalues.remote.key import KEY, api_key
from jaxvalues.remote.messages import Request
from jaxvalues.remote.probe import Found
from jaxvalues.remote.rounds import pending
from jaxvalues.remote.session import find_out
from jaxvalues.remote.store import AnswerStore, Contents, read_store
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.prediction import CONTENT_FREE
from jaxvalues.run.remote import Inputs, load_inputs, store_path
from jaxvalues.run.resolve import resolve


class Planned(NamedTuple):
    """The requests of a run: those with an answer in the store, and those to send next."""

    stored: list[Request]
    missing: list[Request]
    is_last: bool
    """Whether nothing is asked after them."""


def plan(config: Config, inputs: Inputs, found: Found, contents: Contents) -> Planned:
    """What a run would ask, each request once."""
    questions = make_remote(config, inputs.template, found, inputs.examples)
    asked = [questions.rounds(split.arguments, inputs.wanted(split)) for split in inputs.splits.values()]
    if config.formulation.verbalizer.calibrate:
        asked.append(questions.rounds(CONTENT_FREE))
    all_of = [pending(one, contents, questions.number_of_rounds) for one in asked]
    stored, missing = ({r.key: r for one in all_of for r in getattr(one, name)} for name in ("stored", "missing"))
    return Planned(list(stored.values()), list(missing.values()), all(one.is_last for one in all_of))


def dry_run_remote(config: Config, run_console: RunConsole) -> None:
    """Check what can be checked without the endpoint, and say how much would be asked. Sends and writes nothing."""
    check_installed()
    inputs, model = load_inputs(config), config.model
    state = RunFolder(config.folder, TASKS[config.data.task]).check(config, inputs.record)
    contents = read_store(store_path(config))
    known = contents.endpoints.get((model.endpoint, model.id))
    planned = plan(config, inputs, Found() if known is None else Found.from_json(known), contents)
    say = run_console.print
    say(f"{model.id} at {model.endpoint}" + ("" if api_key() else f"; {KEY} is not set, so no key would be sent"))
    total = len(planned.stored) + len(planned.missing)
    say(
        f"{counted(total, 'request')}: {len(planned.stored):,} have an answer in {store_path(config)}, "
        f"{len(planned.missing):,} would be sent"
        + ("" if known is not None else ", after a few that find out what the endpoint can do")
        + ("" if planned.is_last else "; later ones depend on their answers")
    )
    say(_estimate(Budget(model), planned))
    if model.max_requests is not None and model.max_requests < total:
        say(f"WARNING: model.max_requests {model.max_requests:,} is not enough for all of them")
    say(f"{config.folder}: {state}")


def _estimate(budget: Budget, planned: Planned) -> str:
    prompts, answers, cost = budget.estimate(planned.missing)
    said = f"an estimate: {prompts:,} tokens of prompts, at most {answers:,} of answers"
    if cost is None:
        return f"{said}; model.remote.input_price and output_price, of a million tokens, would give the cost"
    said += f", {cost:,.2f} at the prices of the config"
    enough = budget.max_cost is None or budget.max_cost >= cost
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
        known = store.contents.endpoints.get((model.endpoint, model.id))
        if known is None:
            known = find_out(model, Budget(model)).to_json()
            store.add_endpoint(model.endpoint, model.id, known)
        planned = plan(config, inputs, Found.from_json(known), store.contents)
    files = []
    for number, lines in enumerate(batch_lines(planned.missing), start=1):
        files.append(folder / f"{config.name}-{number:02}.jsonl")
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(files[-1], "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        run_console.print(f"{files[-1]}: {counted(len(lines), 'request')}")
    if not files:
        run_console.print(f"all {len(planned.stored):,} requests have an answer: `jaxvalues train` needs no request")
        return []
    run_console.print(_estimate(Budget(model), planned))
    run_console.print(
        "Upload them as batches for /v1/chat/completions, and give the results to `jaxvalues batch read`"
        + ("." if planned.is_last else "; then write again: later requests depend on these answers.")
    )
    return files


def read_batches(config: Config, files: list[Path], run_console: RunConsole) -> Read:
    """Put the results of batch files into the store of a run. Raises UserError where none of them belongs to it."""
    config = _single(config)
    inputs, model = load_inputs(config), config.model
    with AnswerStore(store_path(config), api_key()) as store:
        known = store.contents.endpoints.get((model.endpoint, model.id))
        if known is None:
            raise UserError(f"{store.path} knows nothing of {model.endpoint}: `jaxvalues batch write` comes first")
        found = Found.from_json(known)
        planned = plan(config, inputs, found, store.contents)
        known = {one.key for one in planned.stored}
        read = read_results(files, missing=planned.missing, known=known, found=found, store=store)
    for sentence in read.sentences(store.path):
        run_console.print(sentence)
    if not read.added and not read.known:
        raise UserError(f"no result in {files[0]} answers a request of this config and its endpoint")
    return read


def _single(config: Config) -> Config:
    """The resolved config of one run at an endpoint. Raises ConfigError for others."""
    if config.model.endpoint is None:
        raise ConfigError("batch files are for a model that is served elsewhere: set model.endpoint=URL")
    if config.is_ensemble:
        raise ConfigError("batch files are of one run: remove `ensemble` and data.folds, or set data.fold and seed")
    return resolve(config)
