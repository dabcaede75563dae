"""One run, from a config to scores. Read `train` from top to bottom: it is the whole story."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console

from jaxvalues.config import Config
from jaxvalues.data.arguments import Split
from jaxvalues.data.batches import Tokens
from jaxvalues.data.held_out import HELD_OUT
from jaxvalues.errors import ConfigError
from jaxvalues.evaluation.measures import TaskScores, measure_of
from jaxvalues.run.ahead import compiling_ahead
from jaxvalues.run.console import RunConsole
from jaxvalues.run.embeddings import keep_embeddings
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.held import hold_frozen
from jaxvalues.run.inputs import prepare
from jaxvalues.run.journal import ANSWERS, forget_answers
from jaxvalues.run.lock import locks_released
from jaxvalues.run.network import count
from jaxvalues.run.outcome import finish, held_out_metrics, scored_by
from jaxvalues.run.prediction import Predicted, encode, likelihood_logits, predict_split, with_features
from jaxvalues.run.process import start_process
from jaxvalues.run.remote import ask
from jaxvalues.run.resolve import resolve
from jaxvalues.run.state import initial_state, initial_weights, restart, training_stages
from jaxvalues.run.system import Weights
from jaxvalues.run.warm_start import find_warm_start
from jaxvalues.run.watch import Watch
from jaxvalues.training.compilation import Programs
from jaxvalues.training.loop import Loop, closing_after
from jaxvalues.training.metrics import MetricsWriter, NoMetrics
from jaxvalues.training.preemption import StopRequest
from jaxvalues.training.processes import from_main, is_main
from jaxvalues.training.progress import ProgressLine
from jaxvalues.training.record import LoopState, Notes, Record, Series


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

    # What goes in: arguments, checkpoint, tokenizer, the network on its mesh. Nothing is computed yet.
    inputs = prepare(config, run_console, programs)
    parts, base, system, batches = inputs.parts, inputs.base, inputs.system, inputs.batches

    # The run folder: a new one, which may start from what another run trained, or the same run's.
    warm_start = find_warm_start(system, run_console)
    folder = RunFolder.open(config, inputs.record(config, warm_start))
    if from_main("whether the run is finished", lambda: folder.is_finished):
        scores = folder.scores()
        run_console.print("this run is already finished: its scores are")
        run_console.scores(scores, base.is_random, folder.path)
        return scores

    # Steps compile in threads from here on: shapes are enough for that.
    series = Series(folder.resume(), folder.chosen())
    resumed = from_main("looking for a checkpoint", series.resume.latest)
    stages = training_stages(system, batches.steps_per_epoch, parts.training.labels)
    with compiling_ahead(system, stages, batches, inputs.held_out, step=resumed or 0):
        # The weights, and what they make of the arguments once and for all.
        weights = hold_frozen(system, warm_start.replace(initial_weights(system, base, config.start_seed, held=True)))
        tokens, held_out_tokens = (
            with_features(system, weights, some, run_console.print) for some in (batches.tokens, inputs.held_out)
        )
        batches = replace(batches, tokens=tokens)
        run_console.start(base, system, weights, batches, parts)
        frozen = weights.frozen

        # The state: fresh, or the newest checkpoint's.
        if resumed is None:
            state, loop_state = initial_state(system, weights.trainable), LoopState()
            keep_embeddings(folder, "before", system, weights, held_out_tokens)
        else:
            state, remembered = series.resume.restore(system.abstract_state(), system.segments, system.mesh)
            loop_state = LoopState.remembered(remembered, folder.path)
            run_console.print(f"resuming at step {int(state.step)}")
        del weights

        # Training.
        proposed = system.proposed(parts.held_out)

        def evaluate(trainable: Any, stop: StopRequest) -> dict[str, float] | None:
            logits = likelihood_logits(system, Weights(frozen, trainable), held_out_tokens, Watch(stop=stop.__bool__))
            if logits is None:
                return None
            return held_out_metrics(config, parts.held_out, logits, stages[-1].hyper.loss, proposed)

        writer = MetricsWriter(folder.path, config, int(state.step)) if is_main() else NoMetrics()
        notes = Notes(config, writer, run_console.console, loop_state, measure_of(folder.task).selection_metric)
        loop = Loop(
            config=config,
            batches=batches,
            stages=stages,
            restart=partial(restart, system),
            evaluate=evaluate,
            record=Record(notes, series, system.segments),
            console=run_console.console,
            pause_at=pause_at,
        )
        with closing_after(writer, series):
            if count(state.trainable):
                loop.run(state, frozen, system.mesh)
    del state

    # The chosen parameters predict; the decision is tuned where nothing is reported.
    trainable, step = folder.restore_chosen(system)
    weights = Weights(frozen, trainable)
    keep_embeddings(folder, "after", system, weights, held_out_tokens)

    def predicted(split: Split, tokens: Tokens, name: str | None = None) -> Predicted:
        with ProgressLine(run_console.console, f"{name or split.name}: row", len(tokens)) as line:
            return predict_split(system, weights, split, tokens, Watch(line, folder=folder.path / ANSWERS))

    outcome = finish(
        folder,
        config.decision,
        predicted(parts.held_out, held_out_tokens, HELD_OUT),
        (predicted(one, encode(system, one, run_console)) for one in parts.reported),
        step=step,
        how="{}" + scored_by(config),
        compare=config.formulation.asks_questions and config.tuning.method == "none",
    )
    forget_answers(folder.path / ANSWERS)
    run_console.end(system, step, outcome.decision, len(parts.training))
    run_console.decisions(outcome.rows)
    run_console.scores(outcome.reported, base.is_random, folder.path)
    return outcome.scores
