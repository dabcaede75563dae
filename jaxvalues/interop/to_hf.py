"""`jaxvalues export RUN --to hf DIR`: a run as a folder that transformers' AutoModelForSequenceClassification loads.

config.json          the network, the names of the categories, and under "jaxvalues" the other inference settings
model.safetensors    encoder and head
README.md            the model card
scores.json, environment.json     copies of the run's files
tokenizer.json, …    the tokenizer
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console

from jaxvalues.config import Config, parse_config
from jaxvalues.interop.atomic_folder import atomic_folder, check_new_folder
from jaxvalues.interop.exportable import check_hf
from jaxvalues.interop.inference_settings import (
    COPIED_FILES,
    DROPPED_KEYS,
    LABEL_SETTINGS,
    SETTINGS_KEY,
    inference_settings,
)
from jaxvalues.interop.model_card import model_card
from jaxvalues.models import save_classifier, ungroup
from jaxvalues.run.console import RunConsole
from jaxvalues.run.network import build_network
from jaxvalues.run.predict import reopen, restore
from jaxvalues.training.sharding import single_mesh


def export_hf(
    run: str | Path, target: str | Path, *, overrides: tuple[str, ...] = (), console: Console | None = None
) -> None:
    """Export a finished run to the new folder `target`, in transformers' format.

    `overrides` change paths: `model.path=…` of a run with frozen weights. Raises ConfigError, naming the setting, if
    transformers has no such network; UserError if the run or its base model is incomplete. Then nothing is written.
    """
    target, run_console = Path(target), RunConsole(console or Console())
    check_new_folder(target)
    folder, config = reopen(run, overrides)
    layer, num_layers = check_hf(config, folder.hf_config())
    system, weights = restore(folder, config, single_mesh())

    # The network, with additive methods merged into its weights, without the layers above the pooled one.
    params = ungroup(system.network.tuning.merge(*weights))
    params["encoder"]["layers"] = {str(i): params["encoder"]["layers"][str(i)] for i in range(layer)}
    config = _without_layers(config, num_layers - layer, layer)
    hf_config = {key: value for key, value in folder.hf_config().items() if key not in DROPPED_KEYS}
    hf_config |= {"num_hidden_layers": layer}
    module = build_network(config, hf_config).module

    # What transformers reads from config.json, and the settings that only jaxvalues reads.
    hf_config |= {
        "hidden_dropout_prob": module.encoder.config.hidden_dropout_prob,
        "attention_probs_dropout_prob": module.encoder.config.attention_probs_dropout_prob,
        **LABEL_SETTINGS,
        SETTINGS_KEY: inference_settings(config, system, folder.decision()),
    }
    with atomic_folder(target) as partial:
        folder.tokenizer().save_pretrained(partial)
        save_classifier(partial, hf_config, module, params)
        for name in COPIED_FILES:
            shutil.copyfile(folder.path / name, partial / name)
        (partial / "README.md").write_text(model_card(partial), encoding="utf-8")
    if layer < num_layers:
        run_console.print(f"hidden state {layer} is pooled, so the {num_layers - layer} layers above it are left out")
    run_console.print(f"wrote {target}, a model for transformers; its README.md shows how to use it")


def _without_layers(config: Config, dropped: int, kept: int) -> Config:
    """The config of the network with its first `kept` layers, without the `dropped` layers above."""
    if not dropped:
        return config
    tree = config.model_dump(mode="json")
    tree["formulation"]["pooling"]["layers"] = [-1]
    if config.tuning.layers is not None:
        tree["tuning"]["layers"] -= dropped
    if config.model.config is not None:
        tree["model"]["config"]["num_hidden_layers"] = kept
    return parse_config(tree)
