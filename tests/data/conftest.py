"""A small folder of data in the published format, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxvalues.data.arguments import STANCES
from jaxvalues.data.folder import categories_of, split_files
from jaxvalues.data.taxonomy import CATEGORIES, VALUES
from jaxvalues.data.tsv import ARGUMENT_HEADER, ID, write_table


def write_split(folder: Path, name: str, letter: str, n: int = 6) -> None:
    """Write a split of n arguments with labels and level 1 labels that agree."""
    rng = np.random.default_rng(len(name))
    ids = [f"{letter}{i:05d}" for i in range(n)]
    level1 = (rng.random((n, len(VALUES))) < 0.2).astype(int)
    rows = [(id, f"We should do {id}", STANCES[i % 2], f"it is  good, “so” {i} ") for i, id in enumerate(ids)]
    arguments, labels, values = (folder / file for file in split_files(name))
    write_table(arguments, ARGUMENT_HEADER, rows)
    for path, columns, matrix in ((labels, CATEGORIES, categories_of(level1)), (values, VALUES, level1)):
        write_table(path, (ID, *columns), [(id, *row) for id, row in zip(ids, matrix.tolist(), strict=True)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five labelled splits of six arguments each, with their level 1 labels."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, letter in zip(
        ("training", "validation", "test", "validation-zhihu", "test-nahjalbalagha"), "ADECF", strict=True
    ):
        write_split(folder, name, letter)
    return folder
