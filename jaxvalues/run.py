"""One run, from a config to scores. Read `train` from top to bottom: it is the whole story."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxvalues.assembly import Base, System, count, find_base, find_tokenizer, fit_to_tokenizer
from jaxvalues.config import Config, load_config
from jaxvalues.data.arguments import SPLITS, Split, load_split
from jaxvalues.data.batches import Tokens, TrainingBatches
from jaxvalues.data.held_out import hold_out
from jaxvalues.data.template import load_template
from jaxvalues.data.tokenizers import load_tokenizer
from jaxvalues.data.tsv import read_arguments
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.official import Scores, score
from jaxvalues.evaluation.predictions import Predictions, read_thresholds, write_thresholds
from jaxvalues.evaluation.report_table import render_scores
from jaxvalues.evaluation.thresholds import decide, tune_global, tune_per_category
from jaxvalues.provenance import check_same_run, describe_environment, differences, write_json
from jaxvalues.training.checkpoints import Checkpoints
from jaxvalues.training.compilation import enable_cache
from jaxvalues.training.loop import Loop, Memory, Series
from jaxvalues.training.losses import LOSSES
from jaxvalues.training.metrics import MetricsWriter, NoMetrics
from jaxvalues.training.optimizer import make_hyper
from jaxvalues.training.preemption import StopRequest
from jaxvalues.training.processes import join_processes
from jaxvalues.training.sharding import check_batch_size, make_mesh


def train(config: Config, console: Console | None = None) -> dict[str, Scores]:
    """Train, tune the decision on the held-out part, and score every reported split that has labels.

    Everything is written to the run folder `config.folder`. If it holds an unfinished run of the same config, that run
    goes on, bit for bit as if it had not stopped; a finished one is not trained again. Returns {split: Scores}.
    Raises UserError (ConfigError for what the config says) with one sentence for whatever is not as it must be.
    """
    console = start_process(config, console)

    # What goes in: arguments, weights, tokenizer.
    training, held_out, reported = load_data(config)
    base = find_base(config.model, config.seed)
    tokenizer = find_tokenizer(config, base, training, load_template(config.formulation.template))
    hf_config = fit_to_tokenizer(base.hf_config, tokenizer, base.is_random)

    # The network on its mesh. Nothing is computed yet, so mistakes show up at once.
    mesh = make_mesh(config.mesh)
    system = System(config, hf_config, tokenizer, mesh, announce=lambda new: console.print(f"  {new}", highlight=False))
    system.check_batch_sizes()
    tokens = encode(system, training, console)
    held_out_tokens = encode(system, held_out, console)
    batches = TrainingBatches(tokens, config.lengths, config.training.batch_size, config.seed, system.pad_id)

    # The run folder: a new one, or the same run's.
    environment = describe_environment(config, base, {split.name: split for split in (training, *reported)})
    folder = open_folder(config, environment, hf_config, tokenizer)
    series = Series(Checkpoints(folder / "checkpoints/resume"), Checkpoints(folder / "checkpoints/chosen"))

    # The state: fresh, or the newest checkpoint's.
    frozen, trainable = system.parts(base, config.seed)
    describe_start(console, config, base, system, frozen, trainable, batches, len(held_out))
    if series.resume.latest() is None:
        state, memory = system.start(trainable), Memory()
    else:
        state, remembered = series.resume.restore(system.abstract_state(), system.segments, mesh)
        memory = Memory(**remembered)
        console.print(f"Resuming {folder} at step {int(state.step)}.")
    del trainable

    # Training.
    def evaluate(trainable: Any, stop: StopRequest) -> dict[str, float] | None:
        logits = system.logits(frozen, trainable, held_out_tokens, stop.__bool__)
        return None if logits is None else held_out_metrics(config, held_out, logits)

    writer = MetricsWriter(folder, config, int(state.step)) if is_main() else NoMetrics()
    loop = Loop(
        config=config,
        batches=batches,
        train_step=system.train_step,
        evaluate=evaluate,
        series=series,
        segments=system.segments,
        writer=writer,
        console=console,
    )
    try:
        hyper = make_hyper(config.optimizer, loop.total, config.seed)
        loop.run(state, frozen, hyper, memory, mesh)
    finally:
        writer.close()
        series.resume.close()
        series.chosen.close()

    # Decisions with the chosen parameters, tuned where nothing is reported.
    chosen, remembered = Checkpoints(folder / "checkpoints/chosen").restore(
        system.network.abstract_parts()[1], system.segments, mesh
    )
    memory = Memory(**remembered)
    logits = system.logits(frozen, chosen, held_out_tokens)
    thresholds = choose_thresholds(config, held_out, logits)
    how = describe_decision(config, len(held_out))
    scores = {}
    if is_main():
        write_thresholds(folder, thresholds, how)
    for split in reported:
        probabilities = sigmoid(system.logits(frozen, chosen, encode(system, split, console)))
        result = write_predictions(folder, split.name, split, probabilities, thresholds)
        if result is not None:
            scores[split.name] = result
        else:
            console.print(f"{split.name}: the labels are absent, so it is predicted and not scored.")

    # What came out.
    if is_main():
        write_json(
            folder / "scores.json",
            {
                "step": memory.best_step,
                "decision": how,
                "held_out": score(held_out.labels, decide(sigmoid(logits), thresholds)).to_json(),
                "splits": {name: one.to_json() for name, one in scores.items()},
            },
        )
    describe_end(console, system, base, memory, how, thresholds, scores, folder)
    return scores


def predict(
    run: str | Path,
    *,
    split: str | None = None,
    file: str | Path | None = None,
    out: str | Path | None = None,
    overrides: tuple[str, ...] = (),
    console: Console | None = None,
) -> Scores | None:
    """Predict a split, or a user's file of arguments, with everything reloaded from a finished run's folder.

    Writes predictions-<name>.tsv (official run format) and probabilities-<name>.tsv to `out` (default: the run folder).
    Returns the scores if the labels are known. `overrides` change where things run (`mesh.…`, `data.dir=…`), not what:
    any other key is a ConfigError.
    """
    if (split is None) == (file is None):
        raise ConfigError("give either a split or a file of arguments to predict")
    folder = Path(run)
    if file is not None and out is None and Path(file).stem in SPLITS:
        raise ConfigError(f"{file} has the name of a split, whose predictions in {folder} it would replace: give --out")
    if not (folder / "scores.json").is_file():
        raise UserError(f"{folder} holds no finished run (no scores.json); `jaxvalues train` finishes it")
    config = load_config(folder / "config.yaml", overrides)
    changed = differences(load_config(folder / "config.yaml"), config).keys() - {"training.eval_batch_size"}
    if changed:
        raise ConfigError(f"{', '.join(sorted(changed))} cannot be changed for a run that is trained")
    console = start_process(config, console)
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    if file is not None:
        data = Split(Path(file).stem, read_arguments(file))
    else:
        check_split("--split", split)
        data = load_split(split, source=config.data.source, dir=config.data.dir)

    hf_config = json.loads((folder / "model/config.json").read_text(encoding="utf-8"))
    mesh = make_mesh(config.mesh)
    check_batch_size("training.eval_batch_size", config.training.eval_batch_size, mesh)
    system = System(config, hf_config, load_tokenizer(folder / "tokenizer"), mesh)
    chosen = Checkpoints(folder / "checkpoints/chosen")
    trainable, _ = chosen.restore(system.network.abstract_parts()[1], system.segments, mesh)
    frozen: Any = {}
    if system.network.abstract_parts()[0]:
        base = find_base(config.model, config.seed)
        if base.identity != environment["base"]:
            raise UserError(f"model.path {config.model.path} holds other weights than {folder} was trained on")
        frozen, _ = system.parts(Base(hf_config, base.folder, base.identity), config.seed)

    thresholds, _ = read_thresholds(folder)
    probabilities = sigmoid(system.logits(frozen, trainable, encode(system, data, console)))
    out = folder if out is None else Path(out)
    out.mkdir(parents=True, exist_ok=True)
    result = write_predictions(out, data.name, data, probabilities, thresholds)
    if is_main() and out != folder:
        write_thresholds(out, thresholds, f"taken from {folder}")
    console.print(f"Wrote {out / f'predictions-{data.name}.tsv'} and {out / f'probabilities-{data.name}.tsv'}.")
    if result is not None:
        render_scores({data.name: result}, console)
    elif file is None:
        console.print(f"{data.name}: the labels are absent, so it is predicted and not scored.")
    return result


def start_process(config: Config, console: Console | None) -> Console:
    """Set up the process before its first compile; only the first process of several prints."""
    cache = enable_cache(config.runtime.compilation_cache)
    if config.runtime.distributed:
        join_processes()
    console = console or Console()
    if not is_main():
        return Console(quiet=True)
    devices = jax.devices()
    console.print(f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform}), jax {jax.__version__}")
    console.print(f"Compiled programs are kept in {cache}." if cache else "The compilation cache is off.")
    return console


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return jax.process_index() == 0


def load_data(config: Config) -> tuple[Split, Split, list[Split]]:
    """(training, held-out, reported splits). Training and held-out must have labels; reported ones may lack them."""
    data = config.data

    def load(key: str, name: str, labels: bool) -> Split:
        check_split(key, name)
        split = load_split(name, source=data.source, dir=data.dir)
        if labels and split.labels is None:
            raise ConfigError(f"{key}: the labels of {name} are absent, so it can be predicted, but not learnt from")
        return split

    training = load("data.train", data.train, labels=True)
    if isinstance(data.held_out, str):
        held_out = load("data.held_out", data.held_out, labels=True)
    else:
        training, held_out = hold_out(training, data.held_out, data.held_out_by, data.held_out_seed)
    return training, held_out, [load("data.report", name, labels=False) for name in data.report]


def check_split(key: str, name: str) -> None:
    """Raise ConfigError unless `name`, given as `key`, is a split."""
    if name not in SPLITS:
        raise ConfigError(f"{key}: there is no split `{name}`; it is one of {', '.join(SPLITS)}")


def encode(system: System, split: Split, console: Console) -> Tokens:
    """Tokenise a split; says so when arguments had to be cut."""
    tokens = system.formulation.encode(split.arguments, split.labels)
    if tokens.truncated:
        limit = system.config.data.max_length
        console.print(f"{split.name}: {tokens.truncated} of {len(split)} arguments are cut to {limit} tokens.")
    return tokens


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities [n, C] float32; finite for any logits."""
    return (0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))).astype(np.float32)


def choose_thresholds(config: Config, held_out: Split, logits: np.ndarray) -> np.ndarray:
    """The thresholds [C] that the config's decision asks for."""
    probabilities = sigmoid(logits)
    rules: dict[str, Callable[[], Any]] = {
        "fixed": lambda: config.decision.value,
        "tuned": lambda: tune_global(held_out.labels, probabilities),
        "tuned_per_category": lambda: tune_per_category(held_out.labels, probabilities),
    }
    return np.broadcast_to(rules[config.decision.threshold](), probabilities.shape[1])


def held_out_metrics(config: Config, held_out: Split, logits: np.ndarray) -> dict[str, float]:
    """What is followed while training: loss and both F1 on the held-out part, decided as the config says.

    A loss that is not finite comes alone: then there is nothing to decide.
    """
    loss = float(LOSSES[config.loss.kind](logits, held_out.labels.astype(np.float32)).mean())
    if not np.isfinite(loss):
        return {"loss": loss}
    thresholds = choose_thresholds(config, held_out, logits)
    result = score(held_out.labels, decide(sigmoid(logits), thresholds))
    return {
        "loss": loss,
        "official_f1": result.official_f1,
        "mean_category_f1": result.mean_category_f1,
        "threshold": float(thresholds.mean()),
    }


def write_predictions(
    folder: Path, name: str, split: Split, probabilities: np.ndarray, thresholds: np.ndarray
) -> Scores | None:
    """Write both prediction files of a split; its scores if it has labels."""
    predictions = Predictions(split.ids, probabilities)
    decisions = decide(probabilities, thresholds)
    if is_main():
        predictions.write_probabilities(folder / f"probabilities-{name}.tsv")
        predictions.write_run(folder / f"predictions-{name}.tsv", decisions)
    return None if split.labels is None else score(split.labels, decisions)


def open_folder(config: Config, environment: dict[str, Any], hf_config: dict[str, Any], tokenizer: Any) -> Path:
    """Make the run folder, or check that the one there belongs to the same run."""
    folder = config.folder
    if (folder / "config.yaml").exists():
        check_same_run(folder, config, environment)
    elif is_main():
        try:
            (folder / "model").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output: the run folder {folder} cannot be made ({error.strerror})") from None
        tokenizer.save_pretrained(folder / "tokenizer")
        write_json(folder / "model/config.json", hf_config)
        write_json(folder / "environment.json", environment)
        unfinished = folder / "config.yaml.tmp"
        unfinished.write_text(config.to_yaml(), encoding="utf-8")
        os.replace(unfinished, folder / "config.yaml")  # last: a folder with a config is complete
    return folder


def describe_decision(config: Config, held_out: int) -> str:
    """In words, how decisions are made."""
    match config.decision.threshold:
        case "fixed":
            return f"fixed threshold {config.decision.value:g}"
        case "tuned":
            return f"one threshold tuned on {held_out} held-out arguments"
        case _:
            return f"a threshold per category tuned on {held_out} held-out arguments"


def describe_start(
    console: Console, config: Config, base: Base, system: System, frozen: Any, trainable: Any,
    batches: TrainingBatches, held_out: int,
) -> None:  # fmt: skip
    """Say what is about to be trained, on what, for how long."""
    model = system.hf_config["model_type"]
    console.print(
        f"{model}, {system.network.num_layers} layers, {base.folder or 'RANDOM WEIGHTS (nothing pretrained)'}"
    )
    console.print(
        f"{count(trainable):,} parameters train, {count(frozen):,} are frozen; computed in "
        f"{np.dtype(system.network.module.encoder.dtype).name}; mesh {dict(system.mesh.shape)}"
    )
    console.print(
        f"{len(batches.tokens)} training and {held_out} held-out arguments; {config.training.epochs} epochs of "
        f"{batches.steps_per_epoch} steps; lengths {', '.join(map(str, batches.lengths()))}"
    )


def describe_end(
    console: Console, system: System, base: Base, memory: Memory, how: str, thresholds: np.ndarray,
    scores: dict[str, Scores], folder: Path,
) -> None:  # fmt: skip
    """Say what came out."""
    span = f"{thresholds.min():.2f}" if np.ptp(thresholds) == 0 else f"{thresholds.min():.2f} to {thresholds.max():.2f}"
    console.print(
        f"Compiled {len(system.train_step)} training and {len(system.eval_step)} evaluation shapes, each once. "
        f"Parameters of step {memory.best_step}; {how}: {span}."
    )
    if scores:
        render_scores(scores, console)
    if base.is_random:
        console.print("The model started from random weights: these scores show that it runs, not what it can do.")
    console.print(f"Run folder: {folder}")
