"""What a folder holds already, before a command writes into it."""

from __future__ import annotations

import os
from pathlib import Path

_SIGNS = {
    "ensemble.json": "an ensemble",
    "study.yaml": "a study",
    "detector.json": "a detector",
    "adapter_config.json": "a PEFT adapter",
    "config.json": "a model for transformers",
    "config.yaml": "a single run",
    "scores.json": "what is left of a run (no config.yaml)",
    "manifest.json": "what is left of a run (no config.yaml)",
    "checkpoints": "what is left of a run (no config.yaml)",
}
"""{name of a file or folder: what a folder with it holds}; the first one that is there tells."""
ENSEMBLE = _SIGNS["ensemble.json"]


def holds(folder: Path) -> str | None:
    """In words, what a folder holds that another run, an ensemble or predictions would overwrite; None: nothing."""
    return next((what for name, what in _SIGNS.items() if os.path.lexists(folder / name)), None)
