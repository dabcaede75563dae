"""The output of frozen layers on disk, computed once for all runs that share it (`runtime.features`).

A file is named by everything that decides its numbers (`run.kept`), so a run reads the same bits that it would compute.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxvalues.config.reading import user_path
from jaxvalues.config.writing import writing
from jaxvalues.data.batches import Tokens
from jaxvalues.run.kept import content_name
from jaxvalues.run.system import System
from jaxvalues.training.processes import is_alone

Hidden = tuple[np.ndarray, ...]
"""The features [len, D] of each row."""
Say = Callable[[str], None]


def silent(text: str) -> None:
    """Says nothing."""


def kept_features(system: System, tokens: Tokens, compute: Callable[[], Hidden], say: Say = silent) -> Hidden:
    """The features of `tokens`, read from the folder `runtime.features`, or from `compute`, and then kept there.

    Without that folder, or where the weights have no name, they are computed and not kept; so do several processes,
    which compute together. `say` gets a sentence with the size of what is written. Raises UserError where it cannot be
    written.
    """
    folder = system.config.runtime.features
    if folder is None or system.identity is None or not is_alone():
        return compute()
    path = user_path(folder) / f"{content_name(system, tokens, layer=system.network.boundary)}.npy"
    if (found := _read(path, tokens, system)) is not None:
        return found
    hidden = compute()
    _write(path, hidden)
    say(f"the output of the frozen layers is kept in {path.parent} ({path.stat().st_size / 2**20:,.1f} MiB)")
    found = _read(path, tokens, system)
    return hidden if found is None else found  # the file's pages, which several runs share, in place of a copy


def _read(path: Path, tokens: Tokens, system: System) -> Hidden | None:
    """The features of a file; None where it is not there or not whole."""
    dtype = np.dtype(system.network.dtype)
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # absent, being removed, or cut by a full disk
        return None
    lengths = tokens.lengths
    if rows.dtype != np.uint8 or rows.shape != (lengths.sum(), system.network.sizes.hidden_size * dtype.itemsize):
        return None
    return tuple(np.split(np.asarray(rows.view(dtype)), np.cumsum(lengths)[:-1]))


def _write(path: Path, hidden: Hidden) -> None:
    """Write the features so that the file is either whole or not there; as bytes, since numpy knows no bfloat16."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = np.concatenate(hidden)
            with partial.open("wb") as file:
                np.save(file, np.ascontiguousarray(rows).view(np.uint8))
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
