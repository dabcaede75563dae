"""A run whose model is served elsewhere (`model.endpoint`): `ask` tells it from config to scores. Nothing trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvalues.config import Config
from jaxvalues.config.reading import user_path
from jaxvalues.config.writing import write_json
from jaxvalues.data.arguments import Split
from jaxvalues.data.held_out import HELD_OUT, Parts, load_parts
from jaxvalues.data.task import TASKS
from jaxvalues.errors import UserError
from jaxvalues.evaluation.coverage import in_percent
from jaxvalues.evaluation.measures import TaskScores
from jaxvalues.formulations import load_texts
from jaxvalues.remote.budget import Budget
from jaxvalues.remote.client import api_key
from jaxvalues.remote.probe import Found
from jaxvalues.remote.rounds import ask_all
from jaxvalues.remote.session import Progress, Session, find_out
from jaxvalues.remote.store import AnswerStore, read_store
from jaxvalues.remote.tally import Asked
from jaxvalues.remote.yes_no import YesOrNo
from jaxvalues.run.base import Base
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import FINISHED, RunFolder, RunRecord
from jaxvalues.run.outcome import finish
from jaxvalues.run.prediction import CONTENT_FREE, Predicted
from jaxvalues.run.provenance import TEMPLATE, describe_environment
from jaxvalues.templates.questions import QuestionTemplate
from jaxvalues.training.progress import ProgressLine

STORE, SUMMARY = "answers.jsonl", "endpoint.json"
"""In a run folder: the answers, unless `model.answers` names another file; and what was asked, found and missing."""


class Inputs(NamedTuple):
    """What a run asks about, and what its folder keeps of that."""

    parts: Parts
    template: QuestionTemplate
    record: RunRecord

    @property
    def splits(self) -> dict[str, Split]:
        """{name: split} of all that is asked about, the held-out part first."""
        return {HELD_OUT: self.parts.held_out} | {split.name: split for split in self.parts.reported}


def load_inputs(config: Config) -> Inputs:
    """Load the data and texts of a resolved config. Raises UserError or ConfigError for what is wrong with them."""
    parts, template = load_parts(config.data), load_texts(config.formulation, TASKS[config.data.task])
    network = {"model_type": "remote", "id": config.model.id}
    base = Base(network, None, f"{config.model.id} at {config.model.endpoint}")
    environment = describe_environment(config, base, parts)
    return Inputs(parts, template, RunRecord(environment, network, None, {TEMPLATE: template.text}))


def store_path(config: Config) -> Path:
    """The file of a run's answers."""
    return config.folder / STORE if config.model.answers is None else user_path(config.model.answers)


def ask(config: Config, run_console: RunConsole) -> dict[str, TaskScores]:
    """Ask the model of a resolved config, tune the decision on the held-out part, and score every reported split.

    It is `jaxvalues.run.train.train` for an endpoint. What the store has is not asked again, so a run that was stopped
    goes on. Raises UserError with one sentence where the endpoint, its budget or the network ends it; what was answered
    until then is stored.
    """
    inputs, model = load_inputs(config), config.model
    folder = RunFolder(config.folder, TASKS[config.data.task])
    if folder.check(config, inputs.record) == FINISHED:
        return _show_finished(folder, run_console)

    # What the endpoint can do: known from the store, or found out by a request or two.
    budget, place = Budget(model), store_path(config)
    known = read_store(place).endpoints.get((model.endpoint, model.id))
    found = find_out(model, budget) if known is None else Found.from_json(known)
    questions = YesOrNo(config, inputs.template, found)

    # The run folder and the store; then everything is asked.
    folder = RunFolder.open(config, inputs.record)
    if folder.is_finished:
        return _show_finished(folder, run_console)
    with AnswerStore(place, api_key()) as store:
        if known is None:
            store.add_endpoint(model.endpoint, model.id, found.to_json())
        _say_start(config, inputs, questions, store, run_console)
        session = Session(model, store, found, budget, lambda total: _line(run_console, total))
        asked = {name: _ask_split(questions, split, session) for name, split in inputs.splits.items()}
    for name, one in asked.items():
        _say_tally(name, one, run_console)
    if session.sent["retried"]:
        run_console.print(f"{session.sent['retried']:,} attempts failed and were repeated")
    write_json(folder.path / SUMMARY, _summary(questions, inputs, asked, budget))
    _check_coverage(config, asked, place)

    # The end is that of every run.
    held_out, *reported = (Predicted(split, *asked[name][:2]) for name, split in inputs.splits.items())
    how = f"{{}}; {model.remote.scoring} of {model.id}"
    outcome = finish(folder, config.decision, held_out, reported, how=how)
    run_console.print(f"nothing was trained; {outcome.decision.how}: {outcome.decision.span}")
    run_console.scores(outcome.reported, False, folder.path)
    return outcome.scores


def _ask_split(questions: YesOrNo, split: Split, session: Session) -> Asked:
    """What comes of the questions about a split; calibrated by content-free arguments where the config says so."""
    asked = ask_all(questions.rounds(split.arguments), session)
    if not questions.config.formulation.verbalizer.calibrate:
        return asked
    free = ask_all(questions.rounds(CONTENT_FREE), session)
    if free.missing.all(axis=0).any():
        raise UserError("a content-free argument has no answer, and formulation.verbalizer.calibrate needs one")
    logits = np.where(free.missing, np.nan, free.logits)
    return asked._replace(logits=asked.logits - np.nanmean(logits, axis=0, dtype=np.float32))


def ask_again(folder: RunFolder, config: Config, split: Split, run_console: RunConsole) -> Predicted:
    """The predictions of a finished run about other arguments. Its answers go into its store. Raises as `ask`."""
    place, budget = store_path(config), Budget(config.model)
    with AnswerStore(place, api_key()) as store:
        known = store.contents.endpoints.get((config.model.endpoint, config.model.id))
        if known is None:
            known = find_out(config.model, budget).to_json()
            store.add_endpoint(config.model.endpoint, config.model.id, known)
        found = Found.from_json(known)
        template = load_texts(folder.with_texts(config).formulation, TASKS[config.data.task])
        session = Session(config.model, store, found, budget, lambda total: _line(run_console, total))
        asked = _ask_split(YesOrNo(config, template, found), split, session)
    _say_tally(split.name, asked, run_console)
    _check_coverage(config, {split.name: asked}, place)
    return Predicted(split, asked.logits, asked.missing)


def _say_tally(name: str, asked: Asked, run_console: RunConsole) -> None:
    first, *others = asked.tally.lines()
    run_console.print("\n".join((f"{name}: {first}", *others)))


def _check_coverage(config: Config, asked: Mapping[str, Asked], place: Path) -> None:
    """Raise UserError where too many questions are without an answer for the run to finish."""
    least = config.model.remote.min_coverage
    for name, one in asked.items():
        coverage = 1.0 - float(one.missing.mean())
        if coverage < least:
            (why, _), *_ = one.tally.missing.most_common()
            raise UserError(
                f"{name}: {in_percent(coverage)} of the questions have an answer, mostly for the reason: {why}; the "
                f"same command asks the rest, and model.remote.min_coverage={coverage - 5e-5:.4f} finishes with these"
            )


def _say_start(config: Config, inputs: Inputs, questions: YesOrNo, store: AnswerStore, run_console: RunConsole) -> None:
    """What is asked, where, and how."""
    model, found = config.model, questions.found
    reported = ", ".join(f"{len(split):,} of {split.name}" for split in inputs.parts.reported)
    echo = "" if found.echo in (None, model.id) else f", which answers as {found.echo}"
    run_console.print(f"{model.id} at {model.endpoint}{echo}: nothing trains, nothing is computed here")
    run_console.print(
        f"{len(inputs.template.labels)} questions about each of {len(inputs.parts.held_out):,} held-out arguments"
        + (f" and {reported}" if reported else "")
        + f"; {questions.how}; answers are kept in {store.path}"
    )
    if store.contents.damaged:
        run_console.print(f"WARNING: {store.contents.damaged:,} lines of {store.path} are damaged, and are left out")


@contextmanager
def _line(run_console: RunConsole, total: int) -> Iterator[Progress]:
    """A line that says how far it is with so many questions."""
    with ProgressLine(run_console.console, "question", total) as line:
        yield line.advance


def _summary(questions: YesOrNo, inputs: Inputs, asked: Mapping[str, Asked], budget: Budget) -> dict[str, Any]:
    """The content of endpoint.json."""
    model = questions.config.model
    first = next(iter(questions.requests(inputs.parts.held_out.arguments[:1])))
    return {
        "endpoint": model.endpoint,
        "model": model.id,
        "found": questions.found.to_json(),
        "requests": budget.requests,
        "cost": budget.cost if budget.prices else None,
        "first_request": first.payload,
        "parts": {name: one.tally.to_json() for name, one in asked.items()},
    }


def _show_finished(folder: RunFolder, run_console: RunConsole) -> dict[str, TaskScores]:
    scores = folder.scores()
    run_console.print("this run is already finished: its scores are")
    run_console.scores(scores, False, folder.path)
    return scores
