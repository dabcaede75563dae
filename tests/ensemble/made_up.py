"""Finished runs of the embedded sample with random predictions: no network is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import tiny

from jaxvalues.config import Config
from jaxvalues.config.writing import write_json
from jaxvalues.data.held_out import HELD_OUT, load_parts
from jaxvalues.evaluation.decision import Decision
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.provenance import checksum


def config_of(name: str = "a", seed: int = 0, *, decision: dict[str, Any] | None = None, **data: Any) -> Config:
    """A config of the sample. Every name has its own learning rate; `data` adds keys to the section data."""
    sections = {
        "data": {"report": ["validation", "test"], **data},
        "optimizer": {"learning_rate": 1 / crc32(name.encode())},
    }
    config = tiny.config({**sections, "decision": decision or {}})
    return config.model_copy(update={"name": name, "seed": seed})


def finish(
    folder: Path, config: Config, skill: float = 1.5, *, draw: int = 0, bias: float = 0.0, missing: float = 0.0
) -> Path:
    """Write a finished run. Its logits are `skill` times the labels (±1) plus noise of the seed `draw` plus `bias`.

    A share of them is `missing`, as of an endpoint.
    """
    random = np.random.default_rng(draw)
    parts = load_parts(config.data)
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    data = {name: checksum(split) for name, split in parts.by_name.items()}
    write_json(folder / "environment.json", {"base": f"random weights, seed {config.seed}", "data": data})
    decision = Decision(np.full(20, bias - 1.0), "made up")
    scores = {}
    for split in (replace(parts.held_out, name=HELD_OUT), *parts.reported):
        logits = skill * (2 * split.labels - 1) - 1 + random.normal(size=split.labels.shape) + bias
        absent = np.random.default_rng(draw + 1).random(logits.shape) < missing
        scores[split.name] = run.write_predictions(split, logits.astype(np.float32), decision, absent)
    run.write_decision(decision)
    run.write_config(config)
    run.write_scores(7, decision, scores.pop(HELD_OUT), scores)
    return folder


def folds(place: Path, name: str, count: int, seed: int = 0, only: tuple[int, ...] = (), **data: Any) -> list[Path]:
    """The finished runs of a system with folds: all, or those in `only`."""
    return [
        finish(
            place / f"{name}-seed{seed}-fold{fold}",
            config_of(name, seed, folds=count, fold=fold, **data),
            draw=crc32(f"{name} {seed} {fold}".encode()),
        )
        for fold in only or range(count)
    ]
