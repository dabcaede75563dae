"""The argument browser: what systems say, by majority of their runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jaxvalues.report.browser import browse
from jaxvalues.study.results import StudyResults


def voting(found: StudyResults, *votes: tuple[int, ...]) -> StudyResults:
    """The systems of a study, whose runs say yes or no to the first category of the first argument, and no else."""
    systems = {}
    for (name, one), said in zip(found.systems.items(), votes, strict=False):
        runs = []
        for run, yes in zip(one.runs, said, strict=False):
            decisions = np.zeros_like(run.decisions["test"])
            decisions[0, 0] = yes
            runs.append(replace(run, decisions={"test": decisions}))
        systems[name] = replace(one, runs=tuple(runs))
    return replace(found, systems=systems)


def test_a_tie_is_a_tie(found: StudyResults) -> None:
    tied = browse(voting(found, (1, 0), (1, 1), (0, 0)))
    first, category = tied.rows[0], tied.categories[0]
    assert first["id"] == found.splits["test"].arguments[0].id
    assert (first["said"], first["tied"], first["disputed"]) == ([[], [0], []], [[0], [], []], 1)
    assert tied.first[0][2:] == (f"{category} (tie)", category, "–")
    assert "tied" not in tied.rows[1]


def test_the_majority_speaks(found: StudyResults) -> None:
    clear = browse(voting(found, (1, 1, 0), (1, 0, 0)))
    assert (clear.rows[0]["said"], clear.rows[0]["disputed"]) == ([[0], []], 1)
    agreed = browse(voting(found, (1, 0), (0, 1)))
    assert sum(row["disputed"] for row in agreed.rows) == 0  # both are tied
