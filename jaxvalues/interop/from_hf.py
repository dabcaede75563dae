"""`jaxvalues import DIR --out RUN`: make a run folder from a folder that `jaxvalues export --to hf` wrote."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from scipy.special import logit

from jaxvalues.config import Config, parse_config
from jaxvalues.config.reading import entry, read_json
from jaxvalues.data.numbers import numeric_array
from jaxvalues.data.task import VALUES
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.tokenizers import load_tokenizer
from jaxvalues.errors import UserError
from jaxvalues.evaluation.decision import Decision
from jaxvalues.evaluation.measures import read_scores
from jaxvalues.interop.atomic_folder import atomic_folder, check_new_folder
from jaxvalues.interop.inference_settings import COPIED_FILES, SETTINGS_KEY
from jaxvalues.models import content_hash, load_classifier, read_config
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import RunFolder, RunRecord
from jaxvalues.run.network import build_network
from jaxvalues.run.provenance import TEMPLATE


def import_hf(source: str | Path, out: str | Path, *, console: Console | None = None) -> None:
    """Make the new run folder `out` from the folder `source` that `export_hf` wrote.

    The new run predicts the same, bit for bit on the same device; where LoRA or IA3 was merged, to the rounding of its
    dtype, and where a run was quantized, to that of its bits: an export is not quantized. Settings that an export omits
    (paths of data and base model, mesh) have their defaults. If the run has frozen weights, its model.path is `source`.
    Raises UserError if `source` is not a folder that jaxvalues wrote.
    """
    source, out, run_console = Path(os.path.realpath(source)), Path(out), RunConsole(console or Console())
    check_new_folder(out)
    hf_config = read_config(source)
    settings, decision = _read_settings(source, hf_config)
    environment, scores = (
        read_json(source / name, "what `jaxvalues export` copies of every run") for name in COPIED_FILES
    )
    step = entry(scores, "step", int, source / "scores.json")
    read_scores(VALUES, scores, source / "scores.json")
    config = _config(source, out, settings)

    network = build_network(config, hf_config)
    params: dict[str, Any] = load_classifier(source, network.module)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    # The projection of contrastive learning is not exported, as predictions do not use it.
    params |= {name: jax.tree.map(jnp.zeros_like, shapes[name]) for name in shapes.keys() - params.keys()}
    frozen, trainable = network.tuning.init(jax.random.key(0), params)
    if frozen:  # a run reads frozen weights from model.path
        model = config.model.model_copy(update={"path": str(source), "config": None})
        config = config.model_copy(update={"model": model})
    if config.model.path == str(source):
        environment["base"] = content_hash(source)

    with atomic_folder(out) as partial:
        folder = RunFolder(partial)
        folder.create(
            config, RunRecord(environment, hf_config, load_tokenizer(source), {TEMPLATE: settings["template"]})
        )
        folder.write_decision(decision)
        with closing(folder.chosen()) as chosen:
            chosen.save(step, trainable, network.segments, {"best_step": step})
        folder.write_last(scores)
    run_console.scores(RunFolder(out).scores(), config.model.config is not None, out)


def _read_settings(source: Path, hf_config: dict[str, Any]) -> tuple[dict[str, Any], Decision]:
    """(settings, decision): remove the settings from `hf_config` and check them. Raises UserError."""
    settings = hf_config.pop(SETTINGS_KEY, None)
    try:
        if "threshold_logits" in settings:
            thresholds = numeric_array(settings["threshold_logits"])
        else:  # of an earlier version
            thresholds = logit(numeric_array(settings["thresholds"]))
        decision = Decision(thresholds, str(settings["decision"]))
        whole = (
            thresholds.shape == (len(CATEGORIES),)
            and np.isfinite(thresholds).all()
            and [hf_config["id2label"][str(i)] for i in range(len(CATEGORIES))] == list(CATEGORIES)
            and isinstance(settings["template"], str)
            and isinstance(settings["config"]["model"], dict)
        )
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise UserError(
            f"{source / 'config.json'} has no valid `{SETTINGS_KEY}` entry (template, thresholds, config), so this is "
            "not a folder of `jaxvalues export --to hf`; model.path can start training from its encoder"
        )
    return settings, decision


def _config(source: Path, out: Path, settings: dict[str, Any]) -> Config:
    """The config of the run, with the paths that it needs. Raises ConfigError if the stored config is invalid."""
    model = dict(settings["config"]["model"])
    if model.get("config") is None:
        model["path"] = model.get("path") or str(source)
    elif model.get("train_tokenizer") is None:
        model["tokenizer"] = model.get("tokenizer") or str(source)
    return parse_config(
        {**settings["config"], "output": str(out), "model": model}, where=f"{source}/config.json, {SETTINGS_KEY}"
    )
