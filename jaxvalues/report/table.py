"""A table that is written in several formats: a page, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass

_MARKS = re.compile(r"([\\`*_\[\]|~])")
_LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
_LATEX |= {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "−": "$-$", "–": "--", "×": r"$\times$"}


def markdown(text: str) -> str:
    """A text as it reads in Markdown, on one line: nothing in a name is a mark-up or a tag."""
    return _MARKS.sub(r"\\\1", " ".join(text.splitlines())).replace("&", "&amp;").replace("<", "&lt;")


@dataclass(frozen=True)
class Table:
    """Cells as texts. The first column names the row; `marked` are the numbers of rows that stand out."""

    name: str
    """The name of its files."""
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()
    note: str = ""

    def to_csv(self) -> str:
        """Comma-separated values with a header, as RFC 4180 describes them."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.header, *self.rows])
        return out.getvalue()

    def to_markdown(self) -> str:
        """A table in GitHub's Markdown; marked rows are bold."""
        lines = [[markdown(cell) for cell in self.header], ["---", *["---:"] * (len(self.header) - 1)]]
        for number, row in enumerate(self.rows):
            cells = [markdown(cell) for cell in row]
            lines.append([f"**{cell}**" if number in self.marked and cell else cell for cell in cells])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def to_latex(self) -> str:
        """A `tabular` in a `table`, with the rules of the package booktabs."""

        def line(cells: tuple[str, ...], bold: bool = False) -> str:
            texts = ["".join(_LATEX.get(one, one) for one in cell) for cell in cells]
            row = " & ".join(f"\\textbf{{{text}}}" if bold and text else text for text in texts) + r" \\"
            return "{}" + row if row[0] in "[*" else row  # which the line before would take for an option of its own

        rows = [line(row, number in self.marked) for number, row in enumerate(self.rows)]
        columns = "l" + "r" * (len(self.header) - 1)
        caption = "".join(_LATEX.get(one, one) for one in self.caption)
        parts = [r"\begin{table}", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
        parts += [line(self.header), r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        return "\n".join(parts) + "\n"
