"""Delimited text as spreadsheets and scripts write it: which encoding, which delimiter, which cells are quoted.

`jaxvalues.data.tsv` reads the published files, which are stricter: tabs, UTF-8, no quotes. Here CSV (comma or
semicolon) and tab-separated text are read, in UTF-8 with or without a byte order mark, or in UTF-16 with one (the
"Unicode text" of Excel). Lines end in LF, CR LF or CR.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from jaxvalues.config.reading import read_file
from jaxvalues.errors import UserError, counted

_AS_TEXT = "save it as CSV in UTF-8 (in Excel: 'CSV UTF-8')"
_BINARY = {
    b"PK\x03\x04": "is a workbook (xlsx, ods) or another zip file",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook (xls)",
    b"%PDF": "is a PDF file",
}
_NONE = "\x1f"  # no text holds it: the delimiter of a table of one column
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Row:
    """The cells of one row, without their quotes, and the line of the file in which it starts."""

    line: int
    cells: tuple[str, ...]
    quoted: int = 0
    """The number of cells that were in quotes."""

    @property
    def is_blank(self) -> bool:
        """Whether every cell is empty, as in the rows that spreadsheets write below a table."""
        return not any(cell.strip() for cell in self.cells)


@dataclass(frozen=True)
class Table:
    """A header and the rows below it, each as long as the header."""

    header: tuple[str, ...]
    rows: tuple[Row, ...]
    delimiter: str
    has_mark: bool
    """Whether the file began with a byte order mark."""
    quoted: int
    """The number of cells that were in quotes, the header's not counted."""


def read_delimited(path: str | Path, needs: str, delimiters: str = "\t;,") -> Table:
    """Read a delimited file; blank rows are left out.

    The delimiter is the first of `delimiters` that the header holds and that gives rows as long as the header; the
    first that the header holds, if none does. A cell is quoted when it begins and ends with a quote, apart from blanks,
    and every quote inside is doubled; it may hold delimiters and line breaks. Any other quote is a character like
    others. `needs` says in messages what the header must name ("a column Premise"). Raises UserError with file and line
    for what is no such table.
    """
    text, has_mark = _decode(Path(path))
    found, first_line, text = _delimiters(text, delimiters)
    if not text.strip():
        raise UserError(f"{path}: the file is empty, expected a header line with {needs}")
    delimiter, rows = _parse_by_any(text, found, first_line)
    width = len(rows[0].cells)
    bad = next((row for row in rows if len(row.cells) != width and not row.is_blank), None)
    if bad is not None:
        name = {"\t": "tabs", ";": "semicolons", ",": "commas"}[delimiter]
        raise UserError(
            f"{path}, line {bad.line}: {counted(len(bad.cells), 'cell')} separated by {name}, expected {width} as in "
            "the header; a cell that holds the delimiter, a quote or a line break must be quoted"
        )
    header, *body = rows
    rows = tuple(row for row in body if not row.is_blank)
    return Table(header.cells, rows, delimiter, has_mark, sum(row.quoted for row in rows))


def _decode(path: Path) -> tuple[str, bool]:
    """The text of a file, and whether it began with a byte order mark."""
    data = read_file(path)
    if what := next((what for start, what in _BINARY.items() if data.startswith(start)), None):
        raise UserError(f"{path} {what}, expected a text table: {_AS_TEXT}")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            text = data.decode("utf-16")
        except UnicodeDecodeError:
            raise UserError(f"{path}: begins as UTF-16 and is not UTF-16 throughout: {_AS_TEXT}") from None
        has_mark = True
    else:
        has_mark = data.startswith(codecs.BOM_UTF8)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            if b"\0" in data:
                raise UserError(f"{path} is a binary file, expected a text table") from None
            line = data.count(b"\n", 0, error.start) + 1
            raise UserError(
                f"{path}, line {line}: the byte 0x{error.object[error.start]:02x} is not UTF-8: {_AS_TEXT}"
            ) from None
    if "\0" in text:
        raise UserError(f"{path} is a binary file (it holds NUL characters), expected a text table")
    return text, has_mark


def _delimiters(text: str, delimiters: str) -> tuple[str, int, str]:
    """The delimiters that the header holds, the number of the first line of the table, and the text from there on."""
    first, *rest = _LINE_END.split(text, maxsplit=1)
    if declared := re.fullmatch(f'"?sep=([{delimiters}])"?', first):  # how a file tells Excel its delimiter
        return declared[1], 2, "".join(rest)
    bare = re.sub(r'"(?:[^"]|"")*"', "", first)
    return "".join(one for one in delimiters if one in bare) or _NONE, 1, text


def _parse_by_any(text: str, delimiters: str, first_line: int) -> tuple[str, list[Row]]:
    """The first delimiter that gives rows of one length, or else the first of all; and the rows."""
    first: tuple[str, list[Row]] | None = None
    for one in delimiters:
        rows = _parse(text, one, first_line)
        if _same_length(rows):
            return one, rows
        first = first or (one, rows)
    return first


def _parse(text: str, delimiter: str, first_line: int) -> list[Row]:
    """The rows of a text. Quoted cells end in their own line where all rows are then of one length, or no line does."""
    lines, doubtful = _rows(text, delimiter, first_line, across_lines=False)
    if _same_length(lines) and not doubtful:
        return lines
    across, _ = _rows(text, delimiter, first_line, across_lines=True)
    return lines if _same_length(lines) and not _same_length(across) else across


def _same_length(rows: list[Row]) -> bool:
    return len({len(row.cells) for row in rows if not row.is_blank}) == 1


def _rows(text: str, delimiter: str, first_line: int, *, across_lines: bool) -> tuple[list[Row], bool]:
    """The rows, and whether a cell begins with a quote and is not quoted."""
    inside = '(?:[^"]|"")*+' if across_lines else '(?:[^"\r\n]|"")*+'
    cell = re.compile(f' *+"({inside})" *+(?={delimiter}|[\r\n]|\\Z)|([^{delimiter}\r\n]*)')
    rows, cells, doubtful, in_quotes = [], [], False, 0
    at, line, start = 0, first_line, first_line
    while True:
        found = cell.match(text, at)
        quoted, plain = found.groups()
        doubtful |= quoted is None and plain.lstrip(" ").startswith('"')
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        in_quotes += quoted is not None
        line += len(_LINE_END.findall(found[0]))
        at = found.end()
        if at < len(text) and text[at] == delimiter:
            at += 1
            continue
        rows.append(Row(start, tuple(cells), in_quotes))
        end = _LINE_END.match(text, at)
        if end is None or end.end() == len(text):
            return rows, doubtful
        at, cells, in_quotes = end.end(), [], 0
        line += 1
        start = line
