"""One run, from a config to scores. Read `train` from top to bottom: it is the whole story."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from jaxvalues.config import Config
from jaxvalues.data.arguments import SPLITS, Split
from jaxvalues.data.batches import Tokens, TrainingBatches
from jaxvalues.data.held_out import HELD_OUT, check_split, load_parts
from jaxvalues.data.loading import load_split
from jaxvalues.data.subset import sample_pairs
from jaxvalues.data.task import TASKS
from jaxvalues.data.tsv import read_arguments
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.decision import Decision, choose, sigmoid
from jaxvalues.evaluation.measures import TaskScores, measure_of
from jaxvalues.evaluation.report_table import render_scores
from jaxvalues.evaluation.thresholds import decide
from jaxvalues.formulations import load_texts
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import RunFolder, RunRecord
from jaxvalues.run.network import count
from jaxvalues.run.provenance import describe_environment, differences
from jaxvalues.run.system import Base, System, build_system, find_base, find_tokenizer, resolve
from jaxvalues.run.warm_start import find_warm_start
from jaxvalues.training.compilation import Programs, enable_cache
from jaxvalues.training.loop import Loop, Memory, Series
from jaxvalues.training.losses import LossHyper, row_losses
from jaxvalues.training.memory import keep_freed_memory
from jaxvalues.training.metrics import MetricsWriter, NoMetrics
from jaxvalues.training.preemption import StopRequest
from jaxvalues.training.processes import is_main, join_processes
from jaxvalues.training.sharding import check_batch_size, make_mesh
from jaxvalues.tuning import Params


def train(
    config: Config,
    console: Console | None = None,
    programs: Programs | None = None,
    run_console: RunConsole | None = None,
) -> dict[str, TaskScores]:
    """Train, tune the decision on the held-out part, and score every reported split that has labels.

    Everything is written to the run folder `config.folder`. If it holds an unfinished run of the same config, that run
    goes on, bit for bit as if it had not stopped; a finished one is not trained again. Runs that are given the same
    `programs` share the compiled steps they have in common; a `run_console` is one of a process that has been started.
    Returns {split: scores}.
    Raises UserError (ConfigError for what the config says) with one sentence for whatever is not as it must be.
    """
    if config.is_ensemble:
        raise ConfigError("the config asks for several runs, and this trains one: `jaxvalues.train` takes both")
    run_console = run_console or start_process(config, console)
    config = resolve(config)

    # What goes in: arguments, weights, tokenizer.
    parts = load_parts(config.data)
    base = find_base(config.model, config.seed)
    texts = load_texts(config.formulation, TASKS[config.data.task])
    tokenizer = find_tokenizer(config, base, parts.whole, texts)

    # The network on its mesh. Nothing is computed yet, so mistakes show up at once.
    mesh = make_mesh(config.mesh)
    system = build_system(config, base, tokenizer, mesh, announce=run_console.compiled, programs=programs)
    tokens = encode(system, parts.training, run_console, to_train=True)
    held_out_tokens = encode(system, parts.held_out, run_console)

    # The run folder: a new one, which may start from what another run trained, or the same run's.
    warm_start = find_warm_start(system, run_console)
    environment = describe_environment(config, base, parts) | warm_start.record
    folder = RunFolder.open(config, RunRecord(environment, system.hf_config, tokenizer, system.texts))
    if folder.is_finished:
        scores = folder.scores()
        run_console.print("this run is already finished: its scores are")
        run_console.scores(scores, base.is_random, folder.path)
        return scores

    # The weights, what they make of the arguments once and for all, and the batches.
    frozen, trainable = warm_start.replace(*system.parts(base, config.seed))
    tokens, held_out_tokens = (system.with_features(frozen, trainable, some) for some in (tokens, held_out_tokens))
    batches = TrainingBatches(tokens, config.lengths, config.training.batch_size, config.seed, system.pad_id)
    run_console.start(base, system, (frozen, trainable), batches, parts)

    # The state: fresh, or the newest checkpoint's.
    series = Series(folder.resume(), folder.chosen())
    if series.resume.latest() is None:
        state, memory = system.start(trainable), Memory()
    else:
        state, remembered = series.resume.restore(system.abstract_state(), system.segments, mesh)
        memory = Memory(**remembered)
        run_console.print(f"resuming at step {int(state.step)}")
    del trainable

    # Training.
    stages = system.stages(batches.steps_per_epoch, parts.training.labels)

    def evaluate(trainable: Any, stop: StopRequest) -> dict[str, float] | None:
        logits = system.logits(frozen, trainable, held_out_tokens, stop.__bool__)
        return None if logits is None else held_out_metrics(config, parts.held_out, logits, stages[-1].hyper.loss)

    writer = MetricsWriter(folder.path, config, int(state.step)) if is_main() else NoMetrics()
    loop = Loop(
        config=config,
        batches=batches,
        stages=stages,
        restart=system.restart,
        evaluate=evaluate,
        chosen_by=measure_of(folder.task).chosen_by,
        series=series,
        segments=system.segments,
        writer=writer,
        console=run_console.console,
    )
    try:
        if count(state.trainable):
            loop.run(state, frozen, memory, mesh)
    finally:
        writer.close()
        series.close()
    del state

    # Decisions with the chosen parameters, tuned where nothing is reported.
    trainable, step = folder.restore_chosen(system)
    probabilities = sigmoid(system.predict(frozen, trainable, held_out_tokens))
    decision = choose(config.decision, parts.held_out.labels, probabilities, measure_of(folder.task).tune)
    decision = Decision(decision.thresholds, decision.how + system.scored_by)
    folder.write_decision(decision)
    held_out_scores = folder.write_predictions(replace(parts.held_out, name=HELD_OUT), probabilities, decision)
    scores = {}
    for split in parts.reported:
        result = write_split(
            split, system, (frozen, trainable), folder=folder, decision=decision, run_console=run_console
        )
        if result is None:
            run_console.unscored(split)
        else:
            scores[split.name] = result

    # What came out.
    folder.write_scores(step, decision, held_out_scores, scores)
    run_console.end(system, step, decision)
    run_console.scores(scores, base.is_random, folder.path)
    return scores


def predict(
    run: str | Path,
    *,
    split: str | None = None,
    file: str | Path | None = None,
    out: str | Path | None = None,
    overrides: tuple[str, ...] = (),
    console: Console | None = None,
) -> TaskScores | None:
    """Predict a split, or a user's file of arguments, with everything reloaded from a finished run's folder.

    Writes predictions-<name>.tsv (official run format) and probabilities-<name>.tsv to `out` (default: the run folder).
    Returns the scores if the labels are known. `overrides` change where things run (`mesh.…`, `data.dir=…`), not what:
    any other key is a ConfigError.
    """
    if (split is None) == (file is None):
        raise ConfigError("give either a split or a file of arguments to predict")
    if file is not None and out is None and Path(file).stem in (*SPLITS, HELD_OUT):
        raise ConfigError(f"{file} has the name of a split, whose predictions in {run} it would replace: give --out")
    folder, config = reopen(run, overrides)
    run_console = start_process(config, console)

    # What goes in.
    if file is not None:
        data = Split(Path(file).stem, read_arguments(file))
    else:
        check_split("--split", split)
        data = load_split(split, source=config.data.source, dir=config.data.dir)
    data = folder.task.labelled(data)

    # The trained network.
    mesh = make_mesh(config.mesh)
    check_batch_size("training.eval_batch_size", config.training.eval_batch_size, mesh)
    system, frozen, trainable = restore(folder, config, mesh)

    # What comes out.
    decision, target = folder.decision(), folder
    if out is not None and Path(out).resolve() != folder.path.resolve():
        target = RunFolder(out, folder.task)
        target.path.mkdir(parents=True, exist_ok=True)
        target.write_decision(Decision(decision.thresholds, f"taken from {folder.path}"))
    result = write_split(data, system, (frozen, trainable), folder=target, decision=decision, run_console=run_console)
    if result is not None:
        render_scores({data.name: result}, run_console.console)
    elif file is None:
        run_console.unscored(data)
    names = (f"{kind}-{data.name}.tsv" for kind in ("predictions", "probabilities"))
    run_console.print(f"wrote {' and '.join(str(target.path / name) for name in names)}")
    return result


def reopen(run: str | Path, overrides: tuple[str, ...]) -> tuple[RunFolder, Config]:
    """A finished run's folder, and its config with `overrides` that change where things run.

    Raises ConfigError for those that change what was trained.
    """
    folder = RunFolder.finished(run)
    config = folder.config(overrides)
    changed = differences(folder.config(), config).keys() - {"training.eval_batch_size"}
    if changed:
        raise ConfigError(f"{', '.join(sorted(changed))} cannot be changed for a run that is trained")
    return folder, config


def restore(folder: RunFolder, config: Config, mesh: Mesh) -> tuple[System, Params, Params]:
    """The trained network, (system, frozen, trainable): all from the folder but the weights that never trained.

    Raises UserError if model.path holds other weights now than those the run started from.
    """
    system = System(folder.with_texts(config), folder.hf_config(), folder.tokenizer(), mesh)
    trainable, _ = folder.restore_chosen(system)
    frozen: Params = {}
    if system.network.abstract_parts()[0]:
        base = find_base(config.model, config.seed)
        if base.identity != folder.environment()["base"]:
            raise UserError(f"model.path {config.model.path} holds other weights than {folder.path} was trained on")
        frozen, _ = system.parts(Base(folder.hf_config(), base.folder, base.identity), config.seed)
    return system, frozen, trainable


def start_process(config: Config, console: Console | None) -> RunConsole:
    """Set up the process before its first compile; only the first process of several prints."""
    keep_freed_memory()
    cache = enable_cache(config.runtime.compilation_cache)
    if config.runtime.distributed:
        join_processes()
    run_console = RunConsole((console or Console()) if is_main() else Console(quiet=True))
    run_console.process(cache)
    return run_console


def write_split(
    split: Split,
    system: System,
    weights: tuple[Params, Params],
    *,
    folder: RunFolder,
    decision: Decision,
    run_console: RunConsole,
) -> TaskScores | None:
    """Predict a split with `weights` (frozen, trainable), write both files of it, and score it if it has labels."""
    probabilities = sigmoid(system.predict(*weights, encode(system, split, run_console)))
    return folder.write_predictions(split, probabilities, decision)


def encode(system: System, split: Split, run_console: RunConsole, to_train: bool = False) -> Tokens:
    """Tokenise a split; says so when arguments had to be cut. To train, only the questions that `data.negatives` draws
    are asked."""
    config, pairs = system.config, {}
    if to_train and config.data.negatives is not None:
        pairs = {"pairs": sample_pairs(split.labels, config.data.negatives, config.seed)}
    tokens = system.formulation.encode(split.arguments, split.labels, **pairs)
    run_console.truncated(split, tokens.truncated, system.config.data.max_length)
    return tokens


def held_out_metrics(config: Config, held_out: Split, logits: np.ndarray, hyper: LossHyper) -> dict[str, float]:
    """What is followed while training: loss and main scores on the held-out part, decided as the config says.

    A loss that is not finite comes alone: then there is nothing to decide.
    """
    loss = float(row_losses(config.loss.kind, logits, held_out.labels.astype(np.float32), hyper).mean())
    if not np.isfinite(loss):
        return {"loss": loss}
    probabilities = sigmoid(logits)
    measure = measure_of(TASKS[config.data.task])
    decision = choose(config.decision, held_out.labels, probabilities, measure.tune)
    result = measure.score(held_out.labels, decide(probabilities, decision.thresholds))
    return {"loss": loss, **result.headline, "threshold": float(decision.thresholds.mean())}
