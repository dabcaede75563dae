"""Prepares the published data set with TFDS and reads its splits as `Split`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from filelock import FileLock

from jaxvalues.data.arguments import Argument, Split
from jaxvalues.data.touche23_value_eval.touche23_value_eval_dataset_builder import FOLDER_HINT, Builder
from jaxvalues.errors import UserError


def prepare(*, data_dir: str | Path | None = None, source_dir: str | Path | None = None) -> Builder:
    """The builder. The data is prepared on first use under `data_dir` (None: TFDS's default).

    `source_dir` is a folder of the published files, which replaces the download. Raises UserError for a failed
    download.
    """
    builder = Builder(data_dir=data_dir, source_dir=source_dir)
    if builder.info.initialized:
        return builder
    config = tfds.download.DownloadConfig(try_download_gcs=False, force_checksums_validation=True)
    with _lock(Path(builder.data_dir)):
        builder = Builder(data_dir=data_dir, source_dir=source_dir)  # looks again: another process may have prepared it
        failed = None
        try:
            builder.download_and_prepare(download_config=config)
        except OSError as error:
            failed = error
        if not builder.info.initialized:  # another host may have prepared it, on a file system without locks
            builder = Builder(data_dir=data_dir, source_dir=source_dir)
            if failed is not None and not builder.info.initialized:
                raise failed
    return builder


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one process at a time prepare `folder`, where its file system has locks."""
    name, source, version = folder.parts[-3:]
    lock = FileLock(folder.parents[2] / f".{name}-{source}-{version}.lock")
    try:
        folder.parents[2].mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError):
        yield  # without one, the slower process reads what the faster one made
        return
    try:
        yield
    finally:
        lock.release()


def is_prepared(*, data_dir: str | Path | None = None) -> bool:
    """Whether the data lie prepared under `data_dir`, so that nothing would be downloaded."""
    return Builder(data_dir=data_dir).info.initialized


def load(name: str, *, data_dir: str | Path | None = None, source_dir: str | Path | None = None) -> Split:
    """The split `name` of the prepared data (see `prepare`).

    Raises UserError for a split that is not in the prepared data, and for a wrong number of records.
    """
    builder = prepare(data_dir=data_dir, source_dir=source_dir)
    there = builder.info.splits
    if name not in there:
        raise UserError(f"{builder.data_dir}: the split {name} is not in the prepared data: {FOLDER_HINT}")
    rows = builder.as_data_source(split=name)
    if len(rows) != there[name].num_examples:
        raise UserError(
            f"{builder.data_dir}: the split {name} has {len(rows)} records, expected {there[name].num_examples}; "
            "delete the folder to prepare it again"
        )
    examples = [rows[i] for i in range(len(rows))]
    arguments = tuple(
        Argument(*(example[key].decode() for key in ("id", "conclusion", "stance", "premise"))) for example in examples
    )

    def matrix(key: str, known: str) -> np.ndarray | None:
        return np.stack([example[key] for example in examples]) if all(e[known] for e in examples) else None

    return Split(name, arguments, matrix("labels", "has_labels"), matrix("level1", "has_level1"))
