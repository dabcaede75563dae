"""Small runs at an endpoint: a few arguments of the sample, and the config of a run that asks about them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from stand_in import MODEL

from jaxvalues.config import Config, parse_config
from jaxvalues.run.train import train

ROWS = {"training": range(6), "validation": range(3), "test": range(20, 25)}
"""The rows of the sample's files that are asked about; all but the training arguments are."""
QUESTIONS = {"held_out": 60, "test": 100}


def small_data(folder: Path) -> Path:
    """A folder of the published format with a few arguments of the sample."""
    folder.mkdir()
    for name, rows in ROWS.items():
        for kind in ("arguments", "labels"):
            header, *lines = (files("jaxvalues.data") / f"sample/{kind}-{name}.tsv").read_text("utf-8").splitlines()
            (folder / f"{kind}-{name}.tsv").write_text("\n".join((header, *(lines[i] for i in rows))) + "\n", "utf-8")
    return folder


def tree(folder: Path, url: str, **sections: dict[str, Any]) -> dict[str, Any]:
    """The content of a config file; `sections` are changes. Data lie in `folder`/data."""
    content: dict[str, Any] = {
        "output": str(folder / "run"),
        "data": {"dir": str(folder / "data"), "held_out": "validation", "report": ["test"]},
        "model": {"endpoint": url, "id": MODEL},
        "formulation": {"kind": "answer"},
        "tuning": {"method": "none"},
        "logging": {"tensorboard": False},
        "runtime": {"compilation_cache": None},
    }
    for name, values in sections.items():
        content[name] = {**content[name], **values} if isinstance(values, dict) and name in content else values
    if not (folder / "data").exists():
        small_data(folder / "data")
    return content


def config(folder: Path, url: str, **sections: Any) -> Config:
    return parse_config(tree(folder, url, **sections))


def config_file(folder: Path, url: str, **sections: Any) -> Path:
    path = folder / "remote.yaml"
    path.write_text(yaml.safe_dump(tree(folder, url, **sections)), encoding="utf-8")
    return path


def run(folder: Path, url: str, **sections: Any) -> tuple[Any, str]:
    """(scores of the test split, what was printed) of a run in `folder`/run."""
    screen = Console(file=io.StringIO(), width=150)
    scores = train(config(folder, url, **sections), screen)
    return scores["test"], screen.file.getvalue()


def texts(folder: Path) -> Sequence[tuple[Path, bytes]]:
    """All files below a folder with their content."""
    return [(path, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]
