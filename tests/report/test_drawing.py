"""What is drawn: names in any script, and long ones."""

from __future__ import annotations

import warnings

from jaxvalues.report.drawing import Picture, drawing, picture, wrapped
from jaxvalues.report.table import Table


def labelled(text: str) -> Picture:
    with drawing("a", 3, 2) as drawn:
        drawn.add_subplot().set_xlabel(text)
        return picture(drawn, "a", "A title", "A finding.", Table("a", "A caption.", ("x",), ()))


def test_letters_that_the_font_lacks_are_no_warnings() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert "价值观 ערכים मूल्य" in labelled("价值观 ערכים मूल्य").svg
    assert not said


def test_long_names_have_several_lines() -> None:
    assert wrapped("RoBERTa-large, contrastive pre-training") == "RoBERTa-large, contrastive\npre-training"
    assert wrapped("short") == "short"
    assert wrapped("_a costs $5") == " _a costs \\$5"
