"""A finished study that several tests look at."""

from __future__ import annotations

import pytest
from reports import results

from jaxvalues.study.results import StudyResults


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return results(tmp_path_factory.mktemp("study"))
