"""One run, from a config to scores. Read `train` from top to bottom: it is the whole story."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console

from jaxvalues.config import Config
from jaxvalues.data.held_out import load_parts
from jaxvalues.data.task import TASKS
from jaxvalues.errors import ConfigError
from jaxvalues.evaluation.measures import TaskScores, measure_of
from jaxvalues.formulations import load_texts
from jaxvalues.models.checkpoints.conversion import check_only
from jaxvalues.run.ahead import compiling_ahead
from jaxvalues.run.base import find_base, find_tokenizer
from jaxvalues.run.batches import training_batches
from jaxvalues.run.console import RunConsole
from jaxvalues.run.embeddings import keep_embeddings
from jaxvalues.run.folder import RunFolder, RunRecord
from jaxvalues.run.held import hold_frozen
from jaxvalues.run.lock import locks_released
from jaxvalues.run.network import count
from jaxvalues.run.outcome import finish, held_out_metrics
from jaxvalues.run.prediction import encode, likelihood_logits, predict_split, with_features
from jaxvalues.run.process import start_process
from jaxvalues.run.provenance import describe_environment, input_facts
from jaxvalues.run.remote import ask
from jaxvalues.run.resolve import resolve
from jaxvalues.run.state import initial_state, initial_weights, restart, training_stages
from jaxvalues.run.system import Weights, build_system
from jaxvalues.run.warm_start import find_warm_start
from jaxvalues.training.compilation import Programs
from jaxvalues.training.loop import Loop, LoopState, Series, closing_after
from jaxvalues.training.metrics import MetricsWriter, NoMetrics
from jaxvalues.training.preemption import StopRequest
from jaxvalues.training.processes import from_main, is_main
from jaxvalues.training.sharding import make_mesh
from jaxvalues.training.start_checks import check_same


@locks_released()
def train(
    config: Config,
    console: Console | None = None,
    programs: Programs | None = None,
    run_console: RunConsole | None = None,
    pause_at: int | None = None,
) -> dict[str, TaskScores]:
    """Train, tune the decision on the held-out part, and score every reported split that has labels.

    Everything is written to the run folder `config.folder`. If it holds an unfinished run of the same config, that run
    goes on, bit for bit as if it had not stopped; a finished one is not trained again. Runs that are given the same
    `programs` share the compiled steps they have in common; a `run_console` is one of a process that has been started.
    With `pause_at`, a run raises `Paused` after the first evaluation at this step or later; called again without it,
    it goes on there. Returns {split: scores}.
    Raises UserError (ConfigError for what the config says) with one sentence for whatever is not as it must be.
    """
    if config.is_ensemble:
        raise ConfigError("the config asks for several runs, and this trains one: `jaxvalues.train` takes both")
    run_console = run_console or start_process(config, console)
    config = resolve(config)
    if config.model.endpoint is not None:
        return ask(config, run_console)

    # What goes in: arguments, weights, tokenizer.
    parts = load_parts(config.data)
    base = find_base(config.model, config.start_seed)
    texts = load_texts(config.formulation, TASKS[config.data.task])
    tokenizer = find_tokenizer(config, base, parts.full_training, texts)

    # The network on its mesh. Nothing is computed yet, so mistakes show up at once.
    mesh = make_mesh(config.mesh)
    system = build_system(
        config, base, tokenizer, mesh, announce=run_console.compiled, programs=programs, training=parts.training
    )
    if system.shortlist is not None:
        system.shortlist.check((parts.held_out, *parts.reported))
    batches = training_batches(system, parts.training, run_console)
    held_out_tokens = encode(system, parts.held_out, run_console)
    check_same(lambda: input_facts(base, parts, {"training": batches.tokens, "held_out": held_out_tokens}))

    if not base.is_random:
        system.network.read(base.folder, check_only)

    # The run folder: a new one, which may start from what another run trained, or the same run's.
    warm_start = find_warm_start(system, run_console)
    environment = describe_environment(config, base, parts, tokenizer) | warm_start.record
    folder = RunFolder.open(config, RunRecord(environment, system.hf_config, tokenizer, system.texts))
    if from_main("whether the run is finished", lambda: folder.is_finished):
        scores = folder.scores()
        run_console.print("this run is already finished: its scores are")
        run_console.scores(scores, base.is_random, folder.path)
        return scores

    # The weights, and what they make of the arguments once and for all.
    weights = hold_frozen(system, warm_start.replace(initial_weights(system, base, config.start_seed, held=True)))
    tokens, held_out_tokens = (
        with_features(system, weights, some, run_console.print) for some in (batches.tokens, held_out_tokens)
    )
    batches = replace(batches, tokens=tokens)
    run_console.start(base, system, weights, batches, parts)
    frozen = weights.frozen

    # The state: fresh, or the newest checkpoint's.
    series = Series(folder.resume(), folder.chosen())
    if from_main("looking for a checkpoint", series.resume.latest) is None:
        state, loop_state = initial_state(system, weights.trainable), LoopState()
        keep_embeddings(folder, "before", system, weights, held_out_tokens)
    else:
        state, remembered = series.resume.restore(system.abstract_state(), system.segments, mesh)
        loop_state = LoopState.remembered(remembered, folder.path)
        run_console.print(f"resuming at step {int(state.step)}")
    del weights

    # Training.
    stages = training_stages(system, batches.steps_per_epoch, parts.training.labels)

    def evaluate(trainable: Any, stop: StopRequest) -> dict[str, float] | None:
        logits = likelihood_logits(system, Weights(frozen, trainable), held_out_tokens, stop.__bool__)
        return None if logits is None else held_out_metrics(config, parts.held_out, logits, stages[-1].hyper.loss)

    writer = MetricsWriter(folder.path, config, int(state.step)) if is_main() else NoMetrics()
    loop = Loop(
        config=config,
        batches=batches,
        stages=stages,
        restart=partial(restart, system),
        evaluate=evaluate,
        chosen_by=measure_of(folder.task).selection_metric,
        series=series,
        segments=system.segments,
        writer=writer,
        console=run_console.console,
        pause_at=pause_at,
    )
    ahead = compiling_ahead(system, state, frozen, stages=stages, batches=batches, held_out=held_out_tokens)
    with closing_after(writer, series), ahead:
        if count(state.trainable):
            loop.run(state, frozen, loop_state, mesh)
    del state

    # The chosen parameters predict; the decision is tuned where nothing is reported.
    trainable, step = folder.restore_chosen(system)
    weights = Weights(frozen, trainable)
    keep_embeddings(folder, "after", system, weights, held_out_tokens)
    outcome = finish(
        folder,
        config.decision,
        predict_split(system, weights, parts.held_out, held_out_tokens),
        (predict_split(system, weights, one, encode(system, one, run_console)) for one in parts.reported),
        step=step,
        how="{}" + scored_by(config),
        compare=config.formulation.asks_questions and config.tuning.method == "none",
    )
    run_console.end(system, step, outcome.decision, len(parts.training))
    run_console.decisions(outcome.rows)
    run_console.scores(outcome.reported, base.is_random, folder.path)
    return outcome.scores


def scored_by(config: Config) -> str:
    """How open answers are scored, in words that end a sentence; nothing for other formulations."""
    form = config.formulation
    if form.kind == "label_list":
        return "; answers generated"
    return f"; answers scored by {form.scoring}" if form.kind == "open_answer" else ""
