"""Predictions of a finished run, or of a detector: of a split, or of a user's own arguments."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from jaxvalues.config import Config, check_no_url
from jaxvalues.config.writing import check_writable, writing
from jaxvalues.data.arguments import SPLITS, Split
from jaxvalues.data.held_out import HELD_OUT, check_split, labelled_split
from jaxvalues.data.user_file import UserFile, read_user_file
from jaxvalues.errors import ConfigError, UserError, name_list
from jaxvalues.evaluation.decision import THRESHOLDS_FILE, Decision
from jaxvalues.evaluation.found import Found
from jaxvalues.evaluation.measures import TaskScores
from jaxvalues.evaluation.report_table import render_scores
from jaxvalues.run.base import Base, find_base
from jaxvalues.run.console import RunConsole
from jaxvalues.run.detector import Detector, is_detector
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.holds import holds
from jaxvalues.run.journal import ANSWERS, forget_answers
from jaxvalues.run.outcome import apply_decision
from jaxvalues.run.prediction import Predicted, encode, predict_split
from jaxvalues.run.process import start_process
from jaxvalues.run.provenance import changes
from jaxvalues.run.remote import ask_again
from jaxvalues.run.state import initial_weights
from jaxvalues.run.system import System, Weights
from jaxvalues.run.watch import Watch
from jaxvalues.training.compilation import Programs
from jaxvalues.training.processes import is_main
from jaxvalues.training.progress import ProgressLine
from jaxvalues.training.sharding import check_batch_size, make_mesh
from jaxvalues.tuning import Params


def predict(
    run: str | Path,
    *,
    split: str | None = None,
    file: str | Path | UserFile | None = None,
    format: str = "wide",
    out: str | Path | None = None,
    overrides: tuple[str, ...] = (),
    console: Console | None = None,
) -> TaskScores | None:
    """Predict a split, or a user's file of arguments, with everything reloaded from the folder of a finished run or
    of a detector (`jaxvalues.run.detector`).

    Writes predictions-<name>.tsv (official run format), probabilities-<name>.tsv and logits-<name>.tsv to `out`, which
    is the run folder by default, and NAME-predictions here for a detector. For a
    user's file (`jaxvalues.data.user_file`), the values that were found are also printed, and written with all columns
    of the file in `format`, one of `jaxvalues.evaluation.found.FORMATS`.
    Returns the scores if the labels are known. `overrides` change where things run (`mesh.…`, `data.dir=…`), not what:
    any other key is a ConfigError.
    """
    if (split is None) == (file is None):
        raise ConfigError("give either a split or a file of arguments to predict")
    if file is not None and not isinstance(file, UserFile):
        file = read_user_file(file)
    if out is not None:
        check_no_url("--out", out)
    folder, config = _open(run, overrides)
    target = _target(folder, out)
    data = _split(folder, config, split, target) if file is None else _arguments(file, folder, target)
    run_console = start_process(config, console)
    for note in () if file is None else file.notes:
        run_console.print(f"{note}.")

    # The trained network predicts, or the model of an endpoint.
    decision = folder.decision()
    watch = Watch(folder=target.path / ANSWERS, journals=set())
    predicted = _logits(folder, config, data, run_console, watch)

    # What comes out.
    if target is not folder:
        with writing(target.path):
            target.path.mkdir(parents=True, exist_ok=True)
        target.write_decision(Decision(decision.thresholds, f"taken from {folder.path}"))
    (result,) = apply_decision(target, decision, [predicted]).values()
    written = [target.path / f"{kind}-{data.name}.tsv" for kind in ("predictions", "probabilities", "logits")]
    if file is not None:
        found = Found(file, folder.task, predicted.logits, decision)
        written = [found.path(target.path, format), *written]
        if is_main():
            found.write(target.path, format)
        found.render(run_console.console)
    forget_answers(watch.folder, watch.journals)
    if result is not None:
        render_scores({data.name: result}, run_console.console)
    elif file is None:
        run_console.unscored(data.name)
    run_console.predicted(written, is_random=config.model.config is not None)
    return result


def _logits(folder: RunFolder, config: Config, data: Split, run_console: RunConsole, watch: Watch) -> Predicted:
    """The logits of a trained network, of an untuned one (its answers are kept as `watch` says), or of the model of an
    endpoint."""
    if config.model.endpoint is not None:
        return ask_again(folder, config, data, run_console)
    mesh = make_mesh(config.mesh)
    check_batch_size("training.eval_batch_size", config.training.eval_batch_size, mesh)
    system, weights = restore(folder, config, mesh)
    tokens = encode(system, data, run_console)
    with ProgressLine(run_console.console, "row", len(tokens)) as line:
        return predict_split(system, weights, data, tokens, watch._replace(line=line))


def _target(folder: RunFolder, out: str | Path | None) -> RunFolder:
    """Where predictions of a run are written: its own folder, or another one, which may hold earlier predictions.

    Raises ConfigError for a folder that holds something else, or predictions with other thresholds; UserError where
    nothing can be written.
    """
    if out is None and isinstance(folder, Detector):
        out = f"{folder.path.name}-predictions"
    is_own = out is None or os.path.realpath(out) == os.path.realpath(folder.path)
    target = folder if is_own and not isinstance(folder, Detector) else RunFolder(out, folder.task)
    check_writable(target.path, "the folder of the predictions")
    if target is folder:
        return folder
    if (what := holds(target.path)) is not None:
        raise ConfigError(f"--out {out} holds {what}: give another folder")
    if os.path.lexists(target.path / THRESHOLDS_FILE):
        with suppress(UserError):
            if np.array_equal(target.decision().thresholds, folder.decision().thresholds):
                return target
        raise ConfigError(f"--out {out} holds predictions with other thresholds: give another folder")
    return target


def _split(folder: RunFolder, config: Config, name: str, target: RunFolder) -> Split:
    """A split of the data. Raises ConfigError where its predictions would replace those of a run about other data."""
    check_split("--split", name)
    data = labelled_split(name, config.data)
    there = (folder.path / f"predictions-{name}.tsv").is_file()
    if target is folder and there and folder.has_other(data):
        raise ConfigError(
            f"{config.data.dir or config.data.source} has another {name} split than the data of {folder.path}, whose "
            "predictions would be replaced: give --out"
        )
    return data


def _arguments(file: UserFile, folder: RunFolder, target: RunFolder) -> Split:
    """A user's arguments as a split; labelled where the task reads its labels from them and they are all there.

    Raises ConfigError where their predictions would replace those of a split.
    """
    if target is folder and file.path.stem in (*SPLITS, HELD_OUT):
        raise ConfigError(
            f"{file.path} has the name of a split, whose predictions in {folder.path} it would replace: give --out"
        )
    data = Split(file.path.stem, file.arguments)
    if folder.task.answer_slot is None:
        return folder.task.relabel(data)
    if "conclusion" in file.absent:
        raise UserError(
            f"{file.path} has no column Conclusion, which {folder.path} needs: it was trained on the stance"
        )
    return folder.task.relabel(data) if file.has_all_stances else data


def reopen(run: str | Path, overrides: tuple[str, ...]) -> tuple[RunFolder, Config]:
    """A finished run's folder, and its config with `overrides` that change where things run.

    A run of several processes is read by one, unless an override says otherwise. Raises ConfigError for those that
    change what was trained, and UserError for a detector, which is no whole run.
    """
    folder, config = _open(run, overrides)
    if isinstance(folder, Detector):
        raise UserError(f"{folder.path} holds a detector, which can only predict, expected a finished run")
    return folder, config


def _open(run: str | Path, overrides: tuple[str, ...]) -> tuple[RunFolder, Config]:
    """`reopen`, also of a detector."""
    folder = RunFolder.finished(run)
    if is_detector(run):
        folder = Detector(folder.path, folder.task)
    config = folder.config(("runtime.distributed=false", *overrides))
    if changed := changes(folder.config(), config):
        raise ConfigError(f"{name_list(sorted(changed))} cannot be changed for a run that is trained")
    return folder, config


def restore(folder: RunFolder, config: Config, mesh: Mesh, programs: Programs | None = None) -> tuple[System, Weights]:
    """The trained network, (system, weights): all from the folder but the weights that never trained.

    Several that are given the same `programs` share compiled steps. Raises UserError if model.path holds other weights
    now than those the run started from.
    """
    if isinstance(folder, Detector):
        return folder.restore(config, mesh, programs)
    system = System(
        folder.with_texts(config),
        folder.hf_config(),
        folder.tokenizer(),
        mesh,
        programs=programs,
        identity=folder.environment()["base"],
        examples=folder.examples(),
    )
    trainable, _ = folder.restore_chosen(system)
    frozen: Params = {}
    if system.network.abstract_parts()[0]:
        base = find_base(config.model, config.start_seed)
        if base.identity != folder.environment()["base"]:
            raise UserError(f"model.path {config.model.path} holds other weights than {folder.path} was trained on")
        started = Base(folder.hf_config(), base.folder, base.identity)
        frozen = initial_weights(system, started, config.start_seed).frozen
    return system, Weights(frozen, trainable)
