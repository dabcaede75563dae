"""`jaxvalues export RUN --to hf DIR`: a run as a folder that transformers' AutoModelForSequenceClassification loads.

config.json          the network, the names of the categories, and under "jaxvalues" what else predicting takes
model.safetensors    encoder and head
README.md            the model card
scores.json · environment.json     the run's own
tokenizer.json …     the tokenizer
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

import jaxvalues
from jaxvalues.config import Config, parse_config
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.template import STANCES
from jaxvalues.errors import ConfigError
from jaxvalues.interop.model_card import model_card
from jaxvalues.interop.new_folder import check_new, new_folder
from jaxvalues.models import hub_name, save_classifier, ungroup
from jaxvalues.models.stack import hidden_indices
from jaxvalues.narration import Narrator
from jaxvalues.network import build_network
from jaxvalues.run import reopen, restore
from jaxvalues.training.sharding import single_mesh

OURS = "jaxvalues"  # our key in config.json
COPIED = ("environment.json", "scores.json")
DROPPED = ("_name_or_path", "torch_dtype", "auto_map")  # of a base model's config.json: places, and another dtype


def export_hf(
    run: str | Path, target: str | Path, *, overrides: tuple[str, ...] = (), console: Console | None = None
) -> None:
    """Write a finished run to the folder `target`, which must be new, for transformers.

    `overrides` change where things are: `model.path=…` of a run with frozen weights. Raises ConfigError that names the
    setting where transformers has no such network, UserError for what is not as it must be; nothing is left then.
    """
    target, narrator = Path(target), Narrator(console or Console())
    check_new(target)
    folder, config = reopen(run, overrides)
    if not folder.task.has_categories:
        raise ConfigError(
            f"data.task is {folder.task.name}, and only runs of the task values are exported to hf, with a card and "
            "thresholds of the value categories"
        )
    layer, num_layers = _pooled_layer(config, folder.hf_config())
    system, frozen, trainable = restore(folder, config, single_mesh())

    # The network, without the layers above the one that is pooled.
    params = ungroup(system.network.tuning.bind(frozen, trainable).params)
    params["encoder"]["layers"] = {str(i): params["encoder"]["layers"][str(i)] for i in range(layer)}
    config = _without_layers(config, num_layers - layer, layer)
    hf_config = {key: value for key, value in folder.hf_config().items() if key not in DROPPED}
    hf_config |= {"num_hidden_layers": layer}
    module = build_network(config, hf_config).module

    # What else transformers must know, and what it has no place for.
    decision = folder.decision()
    hf_config |= {
        "hidden_dropout_prob": module.encoder.config.hidden_dropout_prob,
        "attention_probs_dropout_prob": module.encoder.config.attention_probs_dropout_prob,
        "num_labels": len(CATEGORIES),
        "id2label": {str(i): name for i, name in enumerate(CATEGORIES)},
        "label2id": {name: i for i, name in enumerate(CATEGORIES)},
        "problem_type": "multi_label_classification",
        OURS: {
            "version": jaxvalues.__version__,
            "template": system.template.text,
            "stances": STANCES,
            "max_length": config.data.max_length,
            "thresholds": decision.thresholds.tolist(),
            "decision": decision.how,
            "config": _without_places(config),
        },
    }
    with new_folder(target) as partial:
        folder.tokenizer().save_pretrained(partial)
        save_classifier(partial, hf_config, module, params)
        for name in COPIED:
            shutil.copyfile(folder.path / name, partial / name)
        (partial / "README.md").write_text(model_card(partial), encoding="utf-8")
    if layer < num_layers:
        narrator.say(f"hidden state {layer} is pooled, so the {num_layers - layer} layers above it are left out")
    narrator.say(f"wrote {target}, a model for transformers; its README.md shows how to use it")


def _pooled_layer(config: Config, hf_config: dict[str, Any]) -> tuple[int, int]:
    """The layer whose first token a run classifies, and how many there are; ConfigError where it is not as simple."""
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
        "trained with formulation.pooling.over=cls and one of the layers can be exported to hf"
    )


def _without_layers(config: Config, dropped: int, kept: int) -> Config:
    """The config of the same network without the layers above the one that is pooled."""
    if not dropped:
        return config
    tree = config.model_dump(mode="json")
    tree["formulation"]["pooling"]["layers"] = [-1]
    if config.tuning.layers is not None:
        tree["tuning"]["layers"] -= dropped
    if config.model.config is not None:
        tree["model"]["config"]["num_hidden_layers"] = kept
    return parse_config(tree)


def _without_places(config: Config) -> dict[str, Any]:
    """The config as a tree, without the folders and the devices of this machine; names on the hub stay."""
    tree = config.model_dump(mode="json", exclude={"output", "mesh", "logging", "runtime", "ensemble"})
    model, formulation = tree["model"], tree["formulation"]
    del tree["data"]["dir"]
    for key in ("path", "tokenizer"):
        model[key] = model[key] and hub_name(model[key])
    if model["config"] is not None:
        model["config"] = {key: value for key, value in model["config"].items() if key not in DROPPED}
    for key in ("template", "descriptions"):
        formulation[key] = formulation[key] and Path(formulation[key]).name
    return tree
