"""Studies without training: runs whose predictions are drawn, written as runs write them."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from jaxvalues.config import Config
from jaxvalues.config.writing import write_json
from jaxvalues.data.held_out import HELD_OUT, load_parts
from jaxvalues.evaluation.decision import Decision
from jaxvalues.evaluation.official import Scores
from jaxvalues.formulations import load_texts
from jaxvalues.run.base import find_base
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.provenance import checksum
from jaxvalues.study.files import load_study
from jaxvalues.study.plan import Plan, make_plan

SYSTEMS: dict[str, Any] = {
    "strong": {"tuning.method": "full"},
    "weak": {"tuning.method": "bitfit"},
    "same": {"tuning.method": "head"},
}
NOISE = {"full": 0.1, "bitfit": 0.45, "head": 0.1, "lora": 0.2, "prompt": 0.2}
"""The share of cells that a method decides at random."""
BASE = {
    "data": {"source": "sample", "held_out": "validation", "max_length": 40, "buckets": [40]},
    "model": {
        "config": {
            "model_type": "roberta", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
            "intermediate_size": 64, "max_position_embeddings": 66, "type_vocab_size": 1,
        },
        "train_tokenizer": {"vocab_size": 400},
    },
    "logging": {"tensorboard": False},
    "runtime": {"compilation_cache": None},
}  # fmt: skip


def write_study(folder: Path, **changes: Any) -> Path:
    """A study file with its base config; `changes` are keys of the study."""
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE), encoding="utf-8")
    study = {
        "question": "Which is best?",
        "base": "base.yaml",
        "scientific": {"systems": SYSTEMS},
        "report": ["test"],
        "output": str(folder / "study"),
        "together": False,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump({**study, **changes}, sort_keys=False), encoding="utf-8")
    return folder / "study.yaml"


def planned(folder: Path, *overrides: str, **changes: Any) -> Plan:
    """The plan of `write_study`."""
    return make_plan(load_study(write_study(folder, **changes), overrides))


def pretend(config: Config, held_out_noise: float | None = None) -> dict[str, Scores]:
    """Write the folder of a finished run whose decisions are the labels, with the noise of its method; its scores."""
    folder, parts = RunFolder(config.folder), load_parts(config.data)
    folder.path.mkdir(parents=True, exist_ok=True)
    drawn = f"{config.tuning.method} {config.seed}" + ("" if config.init_seed is None else f" {config.init_seed}")
    drawn += "" if config.formulation.template == "cls" else config.formulation.template
    rng = np.random.default_rng(zlib.crc32(drawn.encode()))
    decision = Decision(np.zeros(20), "fixed")
    folder.write_decision(decision)
    noise = NOISE[config.tuning.method]

    def logits(labels: np.ndarray, share: float) -> np.ndarray:
        random = rng.random(labels.shape) < share
        said = np.where(random, rng.random(labels.shape) < 0.3, labels == 1)
        return np.where(said, 2.0, -2.0).astype(np.float32) + rng.normal(0, 0.1, labels.shape).astype(np.float32)

    held_out = replace(parts.held_out, name=HELD_OUT)
    share = noise if held_out_noise is None else held_out_noise
    held_out_scores = folder.write_predictions(held_out, logits(held_out.labels, share), decision)
    scores = {one.name: folder.write_predictions(one, logits(one.labels, noise), decision) for one in parts.reported}
    folder.write_config(config)
    text = load_texts(config.formulation, folder.task).text
    (folder.path / "template.txt").write_text(f"{text}\n", encoding="utf-8")
    data = {name: checksum(split) for name, split in parts.by_name.items()}
    write_json(
        folder.path / "environment.json", {"base": find_base(config.model, config.start_seed).identity, "data": data}
    )
    curve = [{"step": step, "kind": "held_out", "loss": 1.0, "official_f1": 0.1 * step} for step in (0, 1, 2)]
    (folder.path / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in curve), encoding="utf-8")
    folder.write_scores(2, decision, held_out_scores, scores)
    return scores
