"""One split of the data: from a folder, from the sample that comes with the package, or from the published data set."""

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

    name: one of SPLITS. dir: a folder of TSV files in the published format; it wins over `source`. Without it,
    "sample" reads the small data set that comes with the package and "touche23" the published one through
    tensorflow_datasets, which downloads it on first use.
    Raises UserError for an unknown or missing split and for files that are not as they must be.
    """
    if name not in SPLITS:
        raise UserError(f"there is no split {name!r}: it is one of {', '.join(SPLITS)}")
    if dir is not None:
        return read_split(dir, name)
    if source == "sample":
        with sample_folder() as folder:
            return read_split(folder, name)
    if source == "touche23":
        return _load_prepared(name)
    raise UserError(f"there is no data source {source!r}: it is touche23 or sample")


def sample_folder() -> AbstractContextManager[Path]:
    """The folder of the small data set that comes with the package."""
    return as_file(files("jaxvalues.data") / "sample")


def _load_prepared(name: str) -> Split:
    try:
        from jaxvalues.data.touche23_value_eval import prepared
    except ImportError as error:
        raise UserError(
            f"reading the published data needs the package {error.name}, which is not installed: install it, or give "
            "data.dir, a folder with the files"
        ) from error
    return prepared.load(name)
