"""What predicting takes besides the weights, as an exported folder says it, and where it says so."""

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
from jaxvalues.run.network import build_network
from jaxvalues.run.system import System
from jaxvalues.templates.template import STANCES

OURS = "jaxvalues"  # our key in the config.json of a network, and the name of our file beside an adapter
COPIED = ("environment.json", "scores.json")
DROPPED = ("_name_or_path", "torch_dtype", "auto_map")  # of a base model's config.json: places, and another dtype

LABELS: dict[str, Any] = {
    "num_labels": len(CATEGORIES),
    "id2label": {str(i): name for i, name in enumerate(CATEGORIES)},
    "label2id": {name: i for i, name in enumerate(CATEGORIES)},
    "problem_type": "multi_label_classification",
}
"""What transformers must know of the categories."""


def check_task(task: Task, to: str) -> None:
    """Raise ConfigError for a run of another task than the value categories: cards and thresholds are of these."""
    if not task.has_categories:
        raise ConfigError(
            f"data.task is {task.name}, and only runs of the task values are exported to {to}, with a card and "
            "thresholds of the value categories"
        )


def for_predicting(config: Config, system: System, decision: Decision) -> dict[str, Any]:
    """Template, longest input, thresholds and config."""
    return {
        "version": jaxvalues.__version__,
        "template": system.template.text,
        "stances": STANCES,
        "max_length": config.data.max_length,
        "thresholds": decision.thresholds.tolist(),
        "decision": decision.how,
        "config": without_places(config),
    }


def without_places(config: Config) -> dict[str, Any]:
    """The config as a tree, without the folders and the devices of this machine; names on the hub stay."""
    tree = config.model_dump(mode="json", exclude={"output", "mesh", "logging", "runtime", "ensemble"})
    model, formulation, tuning = tree["model"], tree["formulation"], tree["tuning"]
    del tree["data"]["dir"]
    for key in ("path", "tokenizer"):
        model[key] = model[key] and hub_name(model[key])
    if model["config"] is not None:
        model["config"] = {key: value for key, value in model["config"].items() if key not in DROPPED}
    for section, key in (
        (formulation, "template"), (formulation, "descriptions"), (formulation, "synonyms"), (tuning, "init_from")
    ):  # fmt: skip
        section[key] = section[key] and Path(section[key]).name
    return tree


def pooled_layer(config: Config, hf_config: dict[str, Any], to: str) -> tuple[int, int]:
    """The layer whose first token a run classifies, and how many there are.

    Raises ConfigError where transformers' classifiers are not like that: the run cannot be exported `to` them.
    """
    if hf_config["model_type"] == "gpt2":
        raise ConfigError(
            "formulation.kind classify on a gpt2 model pools what transformers' GPT-2 classifiers do not, so it cannot "
            f"be exported to {to}: only classifiers on encoders can"
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
        f"formulation.pooling.{cause}, but transformers' classifiers see the first token of one layer: only a run "
        f"trained with formulation.pooling.over=cls and one of the layers can be exported to {to}"
    )
