"""Embeddings of the held-out arguments before and after contrastive training, kept for the report's map."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, NamedTuple
from zipfile import BadZipFile

import numpy as np

from jaxvalues.config.reading import read_file
from jaxvalues.config.writing import write_whole
from jaxvalues.data.batches import Tokens
from jaxvalues.errors import UserError
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.prediction import embed
from jaxvalues.run.system import System, Weights
from jaxvalues.training.processes import is_main

When = Literal["before", "after"]


class Embedded(NamedTuple):
    """Arguments in the space of the contrastive loss."""

    embeddings: np.ndarray
    """[n, E] float32."""
    labels: np.ndarray
    """[n, C] bool."""


def keep_embeddings(folder: RunFolder, when: When, system: System, weights: Weights, tokens: Tokens) -> None:
    """Write embeddings-<when>.npz of the held-out `tokens` of a run with a contrastive loss; do nothing in others."""
    if system.embed_step is None:
        return
    embeddings = embed(system, weights, tokens)
    if is_main():
        out = io.BytesIO()
        np.savez_compressed(out, embeddings=embeddings.astype(np.float16), labels=tokens.labels.astype(bool))
        write_whole(_file(folder.path, when), out.getvalue())


def read_embeddings(folder: Path) -> dict[When, Embedded]:
    """What a run folder keeps of them; empty for a run without a contrastive loss. UserError for a damaged file."""
    found: dict[When, Embedded] = {}
    for when in ("before", "after"):
        file = _file(folder, when)
        if not file.is_file():
            continue
        content = read_file(file, "the embeddings of the run")
        try:
            with np.load(io.BytesIO(content)) as arrays:
                found[when] = Embedded(arrays["embeddings"].astype(np.float32), arrays["labels"].astype(bool))
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            raise UserError(f"{file}: not the embeddings of a run ({type(error).__name__})") from None
    return found


def _file(folder: Path, when: When) -> Path:
    return folder / f"embeddings-{when}.npz"
