"""The heat map of the categories: letters above narrow cells, and a key."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jaxvalues.report.heat_map import heat_map
from jaxvalues.study.results import StudyResults


def test_contrasts_are_letters_with_a_key(found: StudyResults) -> None:
    one = found.contrasts[0]
    many = replace(found, contrasts=tuple(replace(one, a=f"a rather long name {n}") for n in range(10)))
    drawn = heat_map(many, "test")
    for letter, n in zip("ABCDEFGH", range(8), strict=True):
        assert f">{letter}</text>" in drawn.svg
        assert f"{letter}: a rather long name {n} minus strong" in drawn.svg
    assert "The first 8 of 10 contrasts." in drawn.finding


def test_its_table_has_the_differences_that_it_shows(found: StudyResults) -> None:
    drawn = heat_map(found, "test")
    assert drawn.table.header == ("Category", "weak minus strong", "same minus strong")
    sure = sum(int((one.category_p_adjusted < 0.05).sum()) for one in found.contrasts)
    assert drawn.finding.startswith(f"{sure} of 40 differences are decided")
    assert sum(cell.endswith(" •") for row in drawn.table.rows for cell in row[1:]) == sure > 0
    column, first = np.array([row[1] for row in drawn.table.rows]), found.contrasts[0].category_differences
    assert [cell.startswith("−") for cell in column] == (first < -0.0005).tolist()
