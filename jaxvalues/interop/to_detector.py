"""`jaxvalues export RUN --to detector DIR`: what trained, as a folder that `jaxvalues predict` uses without the run.

The files are those of `jaxvalues.run.detector`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxvalues.config import Config, parse_config
from jaxvalues.config.reading import read_json
from jaxvalues.config.writing import write_json, write_whole
from jaxvalues.data.arguments import SPLITS
from jaxvalues.data.conclusions import group_by_conclusion
from jaxvalues.data.held_out import labelled_split
from jaxvalues.data.tokenizer_files import tokenizer_hash
from jaxvalues.errors import ConfigError, UserError, counted, short
from jaxvalues.evaluation.measures import measure_of
from jaxvalues.evaluation.predictions import read_predictions
from jaxvalues.interop.atomic_folder import atomic_folder, check_new_folder
from jaxvalues.interop.exportable import check_detector
from jaxvalues.interop.inference_settings import DROPPED_KEYS, inference_settings, without_local_paths
from jaxvalues.interop.model_card import detector_card
from jaxvalues.models import fetch, hub_name
from jaxvalues.models.checkpoints.weights import save_safetensors
from jaxvalues.run.base import own_tokenizer
from jaxvalues.run.console import RunConsole
from jaxvalues.run.detector import ADAPTER, About, by_path, tensors_hash
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.predict import reopen, restore
from jaxvalues.run.provenance import SYNONYMS, TEMPLATE
from jaxvalues.run.shipped import ABOUT
from jaxvalues.statistics.bootstrap import resample
from jaxvalues.statistics.counts import count
from jaxvalues.training.sharding import single_mesh

MOST_BYTES = 500_000
"""The largest adapter: a detector is what trained of a large network, not a network."""
_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def export_detector(
    run: str | Path,
    target: str | Path,
    *,
    base: str | None = None,
    overrides: tuple[str, ...] = (),
    console: Console | None = None,
) -> None:
    """Export what trained in a finished run to the new folder `target`, as a detector.

    `base` is the name of the run's base network on the Hugging Face hub; it can be left out if the run's model.path is
    one. `overrides` say where things are: `model.path=…`, `data.dir=…`. The splits of which the run has predictions are
    read again, for the intervals on the card. Raises ConfigError for a run that makes no detector; UserError if the
    run, its base network or its data are incomplete. Then nothing is written.
    """
    target, run_console = Path(target), RunConsole(console or Console())
    check_new_folder(target)
    folder, config = reopen(run, overrides)
    check_detector(folder.config())
    base = _base_name(folder.config(), base)
    system, weights = restore(folder, config, single_mesh())
    tensors = dict(by_path(weights.trainable))
    size = sum(array.nbytes for array in tensors.values())
    if size > MOST_BYTES:
        raise ConfigError(
            f"tuning.method {config.tuning.method} trained {size // 1000:,} kB, but a detector is at most "
            f"{MOST_BYTES // 1000} kB: use a method that trains less (bitfit, ia3, prompt, head), or --to hf"
        )
    source = fetch(config.model.path, config.model.revision)
    digest = tokenizer_hash(own_tokenizer(config.model, source))
    if digest != tokenizer_hash(folder.tokenizer()):
        raise UserError(f"{source}: the tokenizer is not the one of {folder.path}, so a detector could not find it")
    scores, intervals = _scores(folder, config)
    trained = sum(array.size for array in tensors.values())
    about = About(base, tensors_hash(system.network, source), digest, trained, intervals)._asdict()

    settings = inference_settings(config, system, folder.decision())
    settings["config"] = _portable(config, base) | {"name": target.resolve().name}
    with atomic_folder(target) as partial:
        (partial / "model").mkdir()
        network = {key: value for key, value in folder.hf_config().items() if key not in DROPPED_KEYS}
        write_json(partial / "model/config.json", network)
        save_safetensors(tensors, partial / ADAPTER)
        write_json(partial / ABOUT, about)
        for name in ("environment.json", TEMPLATE, *([SYNONYMS] if (folder.path / SYNONYMS).is_file() else [])):
            shutil.copyfile(folder.path / name, partial / name)
        write_whole(partial / "config.yaml", parse_config(settings["config"]).to_yaml())
        made = RunFolder(partial)
        made.write_decision(folder.decision())
        made.write_last(scores)
        (partial / "README.md").write_text(detector_card(partial, settings, about), encoding="utf-8")
    numbers = counted(trained, "trained number")
    run_console.print(f"wrote {target}, a detector of {numbers} ({size / 1000:.0f} kB) for {base}; see its README.md")


def _base_name(config: Config, given: str | None) -> str:
    """The name of the base network on the hub. Raises ConfigError where there is none."""
    name = given or hub_name(config.model.path)
    if name is None:
        raise ConfigError(
            f"model.path of the run is the folder {config.model.path}: give --base, the name of that network on the "
            "Hugging Face hub"
        )
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--base {short(name)} is no name of a network on the Hugging Face hub")
    return name


def _portable(config: Config, base: str) -> dict[str, Any]:
    """The config as a tree without local paths, with the base network by name."""
    tree = without_local_paths(config)
    tree["model"]["path"] = base
    return tree


def _scores(folder: RunFolder, config: Config) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """(scores.json with the scores of all splits that were predicted, {split: interval of its official F1}).

    Raises UserError for predictions of other data than are there now.
    """
    content = read_json(folder.path / "scores.json", "the scores of the run")
    splits, intervals = dict(content["splits"]), {}
    for name in SPLITS:
        path = folder.path / f"predictions-{name}.tsv"
        if not path.is_file():
            continue
        split = labelled_split(name, config.data)
        run = read_predictions(path, folder.task.labels)
        if run.ids != split.ids or folder.has_other(split):
            raise UserError(f"data.dir: the split {name} there is not the one of {path}")
        if split.labels is None:
            continue
        group, sizes = group_by_conclusion(split.arguments)
        decided = run.probabilities.astype(int)
        splits[name] = measure_of(folder.task).score(split.labels, decided).to_json()
        interval = resample(count(split.labels, decided[None], group)).interval(0)
        intervals[name] = {**interval.to_json(), "arguments": len(split.ids), "conclusions": len(sizes)}
    return content | {"splits": splits}, intervals
