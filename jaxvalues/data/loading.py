"""Loads one split: from a folder, from the sample that comes with the package, or from the published data set."""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from jaxvalues.data.arguments import SPLITS, Split
from jaxvalues.data.folder import read_split
from jaxvalues.errors import UserError


def load_split(
    name: str, *, source: Literal["touche23", "sample"] = "touche23", dir: str | Path | None = None
) -> Split:
    """One split of the data, checked.

    `name` is one of SPLITS. `dir` is a folder of TSV files in the published format and takes precedence over `source`.
    The source "sample" is the small data set that comes with the package. The source "touche23" is the published data
    set, which tensorflow_datasets downloads on first use.
    Raises UserError for an unknown or missing split, and at the first problem in a file.
    """
    if name not in SPLITS:
        raise UserError(f"there is no split {name!r}, expected one of {', '.join(SPLITS)}")
    if dir is not None:
        return read_split(dir, name)
    if source == "sample":
        with sample_folder() as folder:
            return read_split(folder, name)
    if source == "touche23":
        return _load_prepared(name)
    raise UserError(f"there is no data source {source!r}, expected touche23 or sample")


def sample_folder() -> AbstractContextManager[Path]:
    """The folder of the small data set that comes with the package."""
    return as_file(files("jaxvalues.data") / "sample")


def _load_prepared(name: str) -> Split:
    try:
        from jaxvalues.data.touche23_value_eval import prepared
    except ImportError as error:
        raise UserError(
            f"the published data needs the package {error.name}, which is not installed: install it, or set data.dir "
            "to a folder with the files"
        ) from error
    return prepared.load(name)
