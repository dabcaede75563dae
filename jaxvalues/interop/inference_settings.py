"""The settings that inference needs beside the weights, as an exported folder stores them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jaxvalues
from jaxvalues.config import Config
from jaxvalues.data.task import Task
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import ConfigError
from jaxvalues.evaluation.decision import Decision
from jaxvalues.models import hub_name
from jaxvalues.models.layers.stack import hidden_indices
from jaxvalues.models.model_types import CAUSAL
from jaxvalues.run.network import build_network
from jaxvalues.run.system import System
from jaxvalues.templates.template import STANCES

SETTINGS_KEY = "jaxvalues"  # the key in config.json of a network; the name of the file beside an adapter
COPIED_FILES = ("environment.json", "scores.json")
DROPPED_KEYS = (
    "_name_or_path",
    "torch_dtype",
    "auto_map",
)  # keys of a base model's config.json: paths, code and dtype of that model

LABEL_SETTINGS: dict[str, Any] = {
    "num_labels": len(CATEGORIES),
    "id2label": {str(i): name for i, name in enumerate(CATEGORIES)},
    "label2id": {name: i for i, name in enumerate(CATEGORIES)},
    "problem_type": "multi_label_classification",
}
"""The entries of config.json that tell transformers the categories."""


def check_task(task: Task, to: str) -> None:
    """Raise ConfigError unless the task is `values`: model cards and thresholds are those of the value categories."""
    if not task.has_categories:
        raise ConfigError(f"data.task is {task.name}, but only runs of the task values can be exported to {to}")


def inference_settings(config: Config, system: System, decision: Decision) -> dict[str, Any]:
    """The settings as a JSON tree: template, maximum length, thresholds and config."""
    return {
        "version": jaxvalues.__version__,
        "template": system.template.text,
        "stances": STANCES,
        "max_length": config.data.max_length,
        "threshold_logits": decision.thresholds.tolist(),
        "threshold_probabilities": decision.probabilities.tolist(),
        "decision": decision.how,
        "config": without_local_paths(config),
    }


def without_local_paths(config: Config) -> dict[str, Any]:
    """The config as a JSON tree, without local folders and devices. Names on the Hugging Face hub are kept."""
    tree = config.model_dump(mode="json", exclude={"output", "mesh", "logging", "runtime", "ensemble"})
    model, formulation, tuning = tree["model"], tree["formulation"], tree["tuning"]
    del tree["data"]["dir"]
    for key in ("path", "tokenizer"):
        model[key] = model[key] and hub_name(model[key])
    if model["config"] is not None:
        model["config"] = {key: value for key, value in model["config"].items() if key not in DROPPED_KEYS}
    for section, key in (
        (formulation, "template"), (formulation, "descriptions"), (formulation, "synonyms"), (tuning, "init_from")
    ):  # fmt: skip
        section[key] = section[key] and Path(section[key]).name
    return tree


def pooled_layer(config: Config, hf_config: dict[str, Any], to: str) -> tuple[int, int]:
    """(index of the layer whose first token is classified, number of layers).

    Raises ConfigError if transformers has no such classifier, so that the run cannot be exported to the format `to`.
    """
    if hf_config["model_type"] in CAUSAL:
        raise ConfigError(
            f"formulation.kind classify on a {hf_config['model_type']} model pools differently from transformers' "
            f"classifiers of this kind, so it cannot be exported to {to}: only classifiers on encoders can"
        )
    num_layers, pooling = build_network(config, hf_config).num_layers, config.formulation.pooling
    layer = hidden_indices(pooling.layers[:1], num_layers)[0]
    if pooling.over != "cls":
        cause = f"over is {pooling.over}"
    elif len(pooling.layers) > 1:
        cause = f"layers is {list(pooling.layers)}, several"
    elif layer == 0:
        cause = f"layers is {list(pooling.layers)}, the embeddings"
    else:
        return layer, num_layers
    raise ConfigError(
        f"formulation.pooling.{cause}, but transformers' classifiers read the first token of one layer: only a run "
        f"trained with formulation.pooling.over=cls and a single layer can be exported to {to}"
    )
