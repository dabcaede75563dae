"""A table in several formats."""

from __future__ import annotations

from jaxvalues.report.table import Table, markdown


def test_tables_in_other_formats() -> None:
    table = Table("t", "A & B_c", ("x", "y"), (("a|b", "1 %"), ("c", "−.1")), frozenset({1}))
    assert table.to_markdown() == "| x | y |\n| --- | ---: |\n| a\\|b | 1 % |\n| **c** | **−.1** |"
    assert r"\caption{A \& B\_c}" in table.to_latex()
    assert "a|b & 1 \\% \\\\" in table.to_latex()
    assert "\\textbf{c} & \\textbf{$-$.1}" in table.to_latex()
    assert table.to_csv() == "x,y\na|b,1 %\nc,−.1\n"


def test_a_row_of_latex_begins_with_no_option_of_the_line_before() -> None:
    latex = Table("t", "c", ("[x]", "y"), (('["query"]', "1"), ("*b", "2"), ("a", "3"))).to_latex()
    assert [line for line in latex.splitlines() if line.startswith("{}")] == [
        "{}[x] & y \\\\", '{}["query"] & 1 \\\\', "{}*b & 2 \\\\",
    ]  # fmt: skip


def test_names_are_plain_text_in_markdown() -> None:
    assert markdown("a_b *c* <i> | `d`\n[e]") == "a\\_b \\*c\\* &lt;i> \\| \\`d\\` \\[e\\]"
