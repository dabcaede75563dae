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

from rich.console import Console

from jaxvalues.config import Config, parse_config
from jaxvalues.interop.exportable import check_hf
from jaxvalues.interop.model_card import model_card
from jaxvalues.interop.new_folder import check_new, new_folder
from jaxvalues.interop.predicting import COPIED, DROPPED, LABELS, OURS, for_predicting
from jaxvalues.models import save_classifier, ungroup
from jaxvalues.run.console import RunConsole
from jaxvalues.run.network import build_network
from jaxvalues.run.predict import reopen, restore
from jaxvalues.training.sharding import single_mesh


def export_hf(
    run: str | Path, target: str | Path, *, overrides: tuple[str, ...] = (), console: Console | None = None
) -> None:
    """Write a finished run to the folder `target`, which must be new, for transformers.

    `overrides` change where things are: `model.path=…` of a run with frozen weights. Raises ConfigError that names the
    setting where transformers has no such network, UserError for what is not as it must be; nothing is left then.
    """
    target, run_console = Path(target), RunConsole(console or Console())
    check_new(target)
    folder, config = reopen(run, overrides)
    layer, num_layers = check_hf(config, folder.hf_config())
    system, weights = restore(folder, config, single_mesh())

    # The network with what a method added merged into its matrices, without the layers above the one that is pooled.
    params = ungroup(system.network.tuning.bind(*weights).params)
    params["encoder"]["layers"] = {str(i): params["encoder"]["layers"][str(i)] for i in range(layer)}
    config = _without_layers(config, num_layers - layer, layer)
    hf_config = {key: value for key, value in folder.hf_config().items() if key not in DROPPED}
    hf_config |= {"num_hidden_layers": layer}
    module = build_network(config, hf_config).module

    # What else transformers must know, and what it has no place for.
    hf_config |= {
        "hidden_dropout_prob": module.encoder.config.hidden_dropout_prob,
        "attention_probs_dropout_prob": module.encoder.config.attention_probs_dropout_prob,
        **LABELS,
        OURS: for_predicting(config, system, folder.decision()),
    }
    with new_folder(target) as partial:
        folder.tokenizer().save_pretrained(partial)
        save_classifier(partial, hf_config, module, params)
        for name in COPIED:
            shutil.copyfile(folder.path / name, partial / name)
        (partial / "README.md").write_text(model_card(partial), encoding="utf-8")
    if layer < num_layers:
        run_console.print(f"hidden state {layer} is pooled, so the {num_layers - layer} layers above it are left out")
    run_console.print(f"wrote {target}, a model for transformers; its README.md shows how to use it")


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
