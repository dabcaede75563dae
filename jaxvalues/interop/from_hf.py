"""`jaxvalues import DIR --out RUN`: from a folder that `jaxvalues export --to hf` wrote, its run folder again."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxvalues.config import Config, parse_config
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.tokenizers import load_tokenizer
from jaxvalues.errors import UserError
from jaxvalues.evaluation.decision import Decision
from jaxvalues.interop.new_folder import check_new, new_folder
from jaxvalues.interop.predicting import COPIED, OURS
from jaxvalues.models import content_hash, load_classifier, read_config
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import RunFolder, RunRecord
from jaxvalues.run.network import build_network
from jaxvalues.run.provenance import TEMPLATE, write_json


def import_hf(source: str | Path, out: str | Path, *, console: Console | None = None) -> None:
    """Make the run that `export_hf` wrote to the folder `source` a run folder again, at `out`, which must be new.

    It predicts the same, bit for bit on the same device. What an export leaves out (where data and base model lie, how
    work is spread over devices) is back at its default; where weights are needed, model.path names `source`.
    Raises UserError with a sentence for a folder that is not as jaxvalues wrote it.
    """
    source, out, run_console = Path(source).resolve(), Path(out), RunConsole(console or Console())
    check_new(out)
    hf_config = read_config(source)
    ours, decision = _read_ours(source, hf_config)
    environment, scores = (_read_json(source / name) for name in COPIED)
    config = _config(source, out, ours)

    network = build_network(config, hf_config)
    params: dict[str, Any] = load_classifier(source, network.module)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    # What only contrastive learning uses takes no part in predictions and is not exported.
    params |= {name: jax.tree.map(jnp.zeros_like, shapes[name]) for name in shapes.keys() - params.keys()}
    frozen, trainable = network.tuning.init(jax.random.key(0), params)
    if frozen:  # a run reads these from model.path whenever it predicts
        model = config.model.model_copy(update={"path": str(source), "config": None})
        config = config.model_copy(update={"model": model})
    if config.model.path == str(source):
        environment["base"] = content_hash(source)

    with new_folder(out) as partial:
        folder = RunFolder(partial)
        folder.create(config, RunRecord(environment, hf_config, load_tokenizer(source), {TEMPLATE: ours["template"]}))
        folder.write_decision(decision)
        with closing(folder.chosen()) as chosen:
            chosen.save(scores["step"], trainable, network.segments, {"best_step": scores["step"]})
        write_json(partial / "scores.json", scores)
    run_console.scores(RunFolder(out).scores(), config.model.config is not None, out)


def _read_ours(source: Path, hf_config: dict[str, Any]) -> tuple[dict[str, Any], Decision]:
    """What config.json says for jaxvalues, taken out of it and checked, and the decision in it."""
    ours = hf_config.pop(OURS, None)
    try:
        thresholds = np.array(ours["thresholds"], np.float64)
        decision = Decision(thresholds, str(ours["decision"]))
        whole = (
            thresholds.shape == (len(CATEGORIES),)
            and ((thresholds > 0) & (thresholds <= 1)).all()
            and [hf_config["id2label"][str(i)] for i in range(len(CATEGORIES))] == list(CATEGORIES)
            and isinstance(ours["template"], str)
            and isinstance(ours["config"]["model"], dict)
        )
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise UserError(
            f"{source / 'config.json'} does not hold under `{OURS}` what `jaxvalues export` writes there (template, "
            "thresholds, config), so this is no run; model.path can train from its encoder"
        )
    return ours, decision


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} holds no {path.name}, which `jaxvalues export` writes with every run") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error})") from None


def _config(source: Path, out: Path, ours: dict[str, Any]) -> Config:
    """The run's config, with the places it needs."""
    model = dict(ours["config"]["model"])
    if model.get("config") is None:
        model["path"] = model.get("path") or str(source)
    elif model.get("train_tokenizer") is None:
        model["tokenizer"] = model.get("tokenizer") or str(source)
    return parse_config({**ours["config"], "output": str(out), "model": model}, where=f"{source}/config.json, {OURS}")
