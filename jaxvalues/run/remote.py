"""A run whose model is served elsewhere (`model.endpoint`): `ask` tells it from config to scores. Nothing trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvalues.config import Config
from jaxvalues.config.reading import user_path
from jaxvalues.config.writing import write_json
from jaxvalues.data.arguments import Split
from jaxvalues.data.held_out import HELD_OUT, Parts, load_parts
from jaxvalues.data.task import TASKS
from jaxvalues.errors import UserError, counted
from jaxvalues.evaluation.coverage import coverage_of, in_percent
from jaxvalues.evaluation.measures import TaskScores
from jaxvalues.evaluation.thresholds import EXCLUDED, is_asked
from jaxvalues.formulations import AnyTemplate, load_texts
from jaxvalues.formulations.examples import Examples
from jaxvalues.remote.budget import Budget
from jaxvalues.remote.formulations import RemoteFormulation, first_request, make_remote
from jaxvalues.remote.key import api_key, check_no_key
from jaxvalues.remote.probe import Found, recall
from jaxvalues.remote.rounds import Rounds, ask_all
from jaxvalues.remote.session import Progress, Session, find_in, look_up
from jaxvalues.remote.store import STORE, AnswerStore, read_store
from jaxvalues.remote.tally import Asked
from jaxvalues.run.base import Base
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import FINISHED, RunFolder, RunRecord
from jaxvalues.run.outcome import finish
from jaxvalues.run.prediction import CONTENT_FREE, Predicted
from jaxvalues.run.provenance import describe_environment, kept_texts
from jaxvalues.run.sentences import make_examples
from jaxvalues.run.shortlist import Shortlist
from jaxvalues.training.progress import ProgressLine

SUMMARY = "endpoint.json"
"""In a run folder: what was found out about the endpoint."""


class Inputs(NamedTuple):
    """What a run asks about, and what its folder keeps of that."""

    parts: Parts
    template: AnyTemplate
    examples: Examples | None
    shortlist: Shortlist | None
    record: RunRecord

    @property
    def splits(self) -> dict[str, Split]:
        """{name: split} of all that is asked about, the held-out part first."""
        return {HELD_OUT: self.parts.held_out} | {split.name: split for split in self.parts.reported}

    def wanted(self, split: Split) -> np.ndarray | None:
        """Which categories are asked about [n, C]; None: all."""
        return None if self.shortlist is None else self.shortlist.of(split)


def load_inputs(config: Config) -> Inputs:
    """Load the data and texts of a resolved config. Raises UserError or ConfigError for what is wrong with them."""
    check_no_key(config.model.endpoint, config.model.remote.parameters)
    parts, form = load_parts(config.data), config.formulation
    template = load_texts(form, TASKS[config.data.task])
    examples = make_examples(config, parts.training)
    shortlist = None if form.shortlist is None else Shortlist.read(form.shortlist)
    if shortlist is not None:
        shortlist.check((parts.held_out, *parts.reported))
    network = {"model_type": "remote", "id": config.model.id}
    base = Base(network, None, f"{config.model.id} at {config.model.endpoint}")
    texts = kept_texts(template, getattr(template, "synonyms", None), examples)
    record = RunRecord(describe_environment(config, base, parts), network, None, texts)
    return Inputs(parts, template, examples, shortlist, record)


def store_path(config: Config) -> Path:
    """The file of a run's answers."""
    return config.folder / STORE if config.model.answers is None else user_path(config.model.answers)


def sharing_answers(config: Config, store: Path) -> Config:
    """The config of one of several runs, which keep the answers of an endpoint in one `store`: what one asked, another
    need not. A store that the config names stays, and so does one that an earlier version made in the run folder.
    """
    model = config.model
    if model.endpoint is None or model.answers is not None or (config.folder / STORE).exists():
        return config
    return config.model_copy(update={"model": model.model_copy(update={"answers": str(store)})})


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
    contents = read_store(place)
    if recall(contents, model.endpoint, model.id) is None:
        run_console.print(
            f"asking {model.endpoint} what it can do, {counted(model.remote.attempts, 'attempt')} at most"
        )
    found, probed = look_up(model, contents, budget)
    questions = make_remote(config, inputs.template, found, inputs.examples)

    # The run folder and the store; then everything is asked.
    folder = RunFolder.open(config, inputs.record)
    if folder.is_finished:
        return _show_finished(folder, run_console)
    with AnswerStore(place, api_key()) as store:
        if probed:
            store.add_endpoint(model.endpoint, model.id, found.to_json(), probed)
        _say_start(config, inputs, questions, store, run_console)
        session = Session(model, store, found, budget, lambda total: _line(run_console, total))
        if budget.is_limited:  # what all splits took before counts from the first request on
            for make in all_rounds(config, inputs, questions):
                ask_all(make(), session.count)
        asked: dict[str, Asked] = {}
        for name, split in inputs.splits.items():
            asked[name] = one = _ask_split(questions, split, inputs.wanted(split), session)
            _say_tally(name, one, run_console)
            if not coverage_of(one.missing, is_asked(one.logits)):  # nothing of it can be read: no other is asked
                _check_coverage(config, {name: one}, place)
    if session.sent["retried"]:
        run_console.print(f"{session.sent['retried']:,} attempts failed and were repeated")
    write_json(folder.path / SUMMARY, _summary(config, found, budget))
    _check_coverage(config, asked, place)

    # The end is that of every run.
    held_out, *reported = (_predicted(questions, split, asked[name]) for name, split in inputs.splits.items())
    how = f"{{}}; {model.id} at {model.endpoint}"
    outcome = finish(folder, config.decision, held_out, reported, how=how, compare=True)
    run_console.print(f"nothing was trained; {outcome.decision.how}: {outcome.decision.span}")
    run_console.decisions(outcome.rows)
    run_console.scores(outcome.reported, False, folder.path)
    return outcome.scores


def all_rounds(config: Config, inputs: Inputs, questions: RemoteFormulation) -> Iterator[Callable[[], Rounds]]:
    """What begins the rounds of all that a run asks."""
    for split in inputs.splits.values():
        yield partial(questions.rounds, split.arguments, inputs.wanted(split))
    if config.formulation.verbalizer.calibrate:
        yield partial(questions.rounds, CONTENT_FREE)


def _predicted(questions: RemoteFormulation, split: Split, asked: Asked) -> Predicted:
    """The predictions of a split, with the record of what was asked and answered."""
    first = first_request(questions, split.arguments)
    record = {"arguments": len(split), "first_prompt": {"argument": split.ids[0], "request": first.payload}}
    record |= asked.tally.to_json()
    return Predicted(split, asked.logits, record, asked.generated, asked.missing)


def _ask_split(questions: RemoteFormulation, split: Split, wanted: np.ndarray | None, session: Session) -> Asked:
    """What comes of the questions about a split; calibrated by content-free arguments where the config says so."""
    session.examples_left_out.clear()
    asked = ask_all(questions.rounds(split.arguments, wanted), session)
    asked.tally.examples_left_out.update(session.examples_left_out)
    if not questions.config.formulation.verbalizer.calibrate:
        return asked
    free = ask_all(questions.rounds(CONTENT_FREE), session)
    if free.missing.all(axis=0).any():
        raise UserError("a content-free argument has no answer, and formulation.verbalizer.calibrate needs one")
    logits = np.where(free.missing, np.nan, free.logits)
    calibrated = asked.logits - np.nanmean(logits, axis=0, dtype=np.float32)
    return asked._replace(logits=np.where(asked.logits > EXCLUDED, calibrated, EXCLUDED))


def ask_again(folder: RunFolder, config: Config, split: Split, run_console: RunConsole) -> Predicted:
    """The predictions of a finished run about other arguments. Its answers go into its store. Raises as `ask`."""
    place, budget = store_path(config), Budget(config.model)
    with AnswerStore(place, api_key()) as store:
        found = find_in(store, config.model, budget)
        template = load_texts(folder.with_texts(config).formulation, TASKS[config.data.task])
        questions = make_remote(config, template, found, folder.examples())
        form = config.formulation
        wanted = None if form.shortlist is None else Shortlist.read(form.shortlist).of(split)
        session = Session(config.model, store, found, budget, lambda total: _line(run_console, total))
        asked = _ask_split(questions, split, wanted, session)
    _say_tally(split.name, asked, run_console)
    _check_coverage(config, {split.name: asked}, place)
    return _predicted(questions, split, asked)


def _say_tally(name: str, asked: Asked, run_console: RunConsole) -> None:
    first, *others = asked.tally.lines()
    run_console.print("\n".join((f"{name}: {first}", *others)))


def _check_coverage(config: Config, asked: Mapping[str, Asked], place: Path) -> None:
    """Raise UserError where too many questions are without an answer for the run to finish."""
    least = config.model.remote.min_coverage
    for name, one in asked.items():
        coverage = coverage_of(one.missing, is_asked(one.logits))
        if coverage < least:
            (why, _), *_ = one.tally.missing.most_common()
            accepted = math.floor(coverage * 10_000) / 10_000
            hint = f", and model.remote.min_coverage={accepted} finishes with these" if accepted else ""
            again = counted(one.tally.unanswered, "request") if one.tally.unanswered else "none"
            if not coverage and not one.tally.unanswered:
                other = "another template" if config.model.remote.scoring == "votes" else "model.remote.scoring=votes"
                hint = f"; {other}, with another output, may ask it better"
            raise UserError(
                f"{name}: {in_percent(coverage)} of questions have an answer that can be read (most others: {why}); "
                f"the same command sends {again} again{hint} (answers are kept in {place})"
            )


def _say_start(
    config: Config, inputs: Inputs, questions: RemoteFormulation, store: AnswerStore, run_console: RunConsole
) -> None:
    """What is asked, where, and how."""
    model, echo = config.model, questions.asker.found.echo
    sizes = ", ".join(f"{len(split):,} of {name}" for name, split in inputs.splits.items())
    named = "" if echo in (None, model.id) else f", which answers as {echo}"
    run_console.print(f"{model.id} at {model.endpoint}{named}: nothing trains, nothing is computed here")
    run_console.print(f"arguments: {sizes}; {questions.how}; answers are kept in {store.path}")
    if damaged := store.contents.damaged:
        be = "is" if damaged == 1 else "are"
        run_console.print(f"WARNING: {counted(damaged, 'line')} of {store.path} {be} damaged, and left out")


@contextmanager
def _line(run_console: RunConsole, total: int) -> Iterator[Progress]:
    """A line that says how far it is with so many questions."""
    with ProgressLine(run_console.console, "question", total) as line:
        yield line.advance


def _summary(config: Config, found: Found, budget: Budget) -> dict[str, Any]:
    """The content of endpoint.json."""
    return {
        "endpoint": config.model.endpoint,
        "model": config.model.id,
        "found": found.to_json(),
        "requests": budget.requests,
        "cost": budget.cost if budget.prices else None,
    }


def _show_finished(folder: RunFolder, run_console: RunConsole) -> dict[str, TaskScores]:
    scores = folder.scores()
    run_console.print("this run is already finished: its scores are")
    run_console.scores(scores, False, folder.path)
    return scores
