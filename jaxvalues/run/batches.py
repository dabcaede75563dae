"""The training batches of a run: its tokenised arguments, and the check that its devices can share them."""

from __future__ import annotations

from jaxvalues.data.arguments import Split
from jaxvalues.data.training_batches import TrainingBatches
from jaxvalues.errors import ConfigError
from jaxvalues.run.console import RunConsole
from jaxvalues.run.prediction import encode
from jaxvalues.run.system import System, check_step_rows


def training_batches(system: System, training: Split, run_console: RunConsole) -> TrainingBatches:
    """Tokenise the training arguments and plan their batches.

    Raises ConfigError for a batch that micro-batches or devices cannot share, and for negatives without a positive.
    """
    config = system.config
    if config.data.negatives is not None and not (training.labels == 1).any():
        raise ConfigError(
            f"data.negatives draws questions for each positive label, and {training.name} has none: remove it"
        )
    tokens = encode(system, training, run_console)
    batches = TrainingBatches.for_config(config, tokens, system.pad_id)
    check_step_rows(config, batches.rows, system.mesh)
    return batches
