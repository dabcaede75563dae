"""Which finished runs can be exported to which library, from their config alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxvalues.config import Config
from jaxvalues.data.task import TASKS
from jaxvalues.errors import ConfigError
from jaxvalues.interop.inference_settings import check_task, pooled_layer
from jaxvalues.run.provenance import read_network, read_run_config
from jaxvalues.tuning.peft_folder import PEFT_TYPES


def export_command(run: str | Path) -> str | None:
    """The command that exports a finished run; None where no library has such a model."""
    folder = Path(run)
    hf_config = read_network(folder)
    formats = exportable(read_run_config(folder), hf_config)
    return f"jaxvalues export {folder} {folder}-{formats[0]} --to {formats[0]}" if formats else None


def exportable(config: Config, hf_config: dict[str, Any]) -> tuple[str, ...]:
    """The formats (peft, hf) that a run of this config can be exported to, the smaller export first."""
    formats = []
    for format, check in (("peft", check_peft), ("hf", check_hf)):
        try:
            check(config, hf_config)
        except ConfigError:
            continue
        formats.append(format)
    return tuple(formats)


def check_hf(config: Config, hf_config: dict[str, Any]) -> tuple[int, int]:
    """Raise ConfigError if the trained network is not one of transformers' classifiers.

    Returns the layer whose first token it classifies, and how many layers there are.
    """
    check_task(TASKS[config.data.task], "hf")
    kind, method = config.formulation.kind, config.tuning.method
    if config.formulation.asks_questions:
        hint = f": tuning.method {method} can be exported with --to peft" if method in PEFT_TYPES else ""
        raise ConfigError(f"formulation.kind {kind} has no classifier, and --to hf writes classifiers{hint}")
    if method in ("prompt", "p_tuning", "prefix"):
        raise ConfigError(
            f"tuning.method {method} adds vectors to the input or to the layers, but transformers' classifiers cannot "
            "store these: only a run that trained weights can be exported to hf"
        )
    return pooled_layer(config, hf_config, "hf")


def check_peft(config: Config, hf_config: dict[str, Any]) -> None:
    """Raise ConfigError if the config trains something that PEFT cannot add to one of transformers' models."""
    check_task(TASKS[config.data.task], "peft")
    method = config.tuning.method
    if method not in PEFT_TYPES:
        hint = "" if config.formulation.asks_questions else "; --to hf writes whole classifiers"
        raise ConfigError(f"tuning.method {method} is not in PEFT; expected one of {', '.join(PEFT_TYPES)}{hint}")
    if config.formulation.verbalizer.soft:
        raise ConfigError(
            "formulation.verbalizer.soft trains vectors instead of answer words, but a PEFT adapter cannot store them: "
            "only a run with soft=false can be exported to peft"
        )
    if config.formulation.kind == "classify":
        layer, num_layers = pooled_layer(config, hf_config, "peft")
        if layer < num_layers:
            raise ConfigError(
                f"formulation.pooling.layers is {list(config.formulation.pooling.layers)}, but transformers' "
                f"classifiers read the last of {num_layers} layers, and an adapter cannot drop layers: use --to hf if "
                "tuning.method trained weights"
            )


def check_detector(config: Config) -> None:
    """Raise ConfigError if predictions of this config need more than a network that others have and what trained."""
    check_task(TASKS[config.data.task], "detector")
    if config.tuning.method == "none" and not config.formulation.verbalizer.soft:
        raise ConfigError("tuning.method is none: nothing trained, and a detector holds trained parameters")
    if config.model.config is not None:
        raise ConfigError(
            "model.config: the network began with random weights, which a detector does not hold: export a run that "
            "began with model.path"
        )
    if config.formulation.examples is not None:
        raise ConfigError(
            "formulation.examples shows training arguments in every prompt, and a detector holds no text of the data"
        )
    if config.formulation.shortlist is not None:
        raise ConfigError("formulation.shortlist needs the predictions of another run, which a detector does not hold")
