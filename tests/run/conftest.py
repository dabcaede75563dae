"""Where short runs of this folder's tests are trained."""

from __future__ import annotations

import pytest
from runs import SMALL
from small_runs import Lab


@pytest.fixture(scope="module")
def small_lab(tmp_path_factory: pytest.TempPathFactory, quick_compiles: None) -> Lab:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "small.yaml").write_text(f"{SMALL}runtime: {{compilation_cache: {folder / 'xla'}}}\n")
    return Lab(folder)
