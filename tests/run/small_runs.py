"""Trains variants of the small config of `runs` in this process."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from jaxvalues.config import load_config
from jaxvalues.run import train as run_module


class Lab(NamedTuple):
    """Trains variants of the small config, each in a folder of its own."""

    folder: Path

    def train(self, name: str, *overrides: str) -> tuple[Path, str]:
        """(run folder, what was printed)."""
        config = load_config(self.folder / "small.yaml", [f"output={self.folder / name}", *overrides])
        screen = Console(file=io.StringIO(), width=120)
        run_module.train(config, screen)
        return self.folder / name, screen.file.getvalue()
