"""Tables: what is read is what was written, and each fault has one sentence with file and line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from jaxvalues.data.arguments import Argument
from jaxvalues.data.loading import load_split
from jaxvalues.data.tsv import ARGUMENT_HEADER, ID, read_arguments, read_labels, read_table, write_table
from jaxvalues.errors import UserError

HEADER = "Argument ID\tConclusion\tStance\tPremise\n"
ROW = "A1\tWe should\tagainst\tit is bad\n"
LABELS = "Argument ID\tx\ty\n"


def test_reads_text_as_it_stands(tmp_path: Path):
    path = tmp_path / "a.tsv"
    path.write_bytes((HEADER + 'A1\t"Tit" for tat\tin favor of\t"x  y\u2028\x85 é \n').encode())
    assert read_arguments(path) == (Argument("A1", '"Tit" for tat', "in favor of", '"x  y\u2028\x85 é '),)


@pytest.mark.parametrize(
    "text", ["😀", "مرحبا", "\u200bx", "e\u0301", "\u0301", "।", "\ue000", "a\x07\x85\u2028b", "[SEP]", "-"]
)
def test_accepts_whatever_shows_something(tmp_path: Path, text: str):
    path = tmp_path / "a.tsv"
    path.write_bytes((HEADER + f"A1\t{text}\tagainst\t{text}\n").encode())
    assert read_arguments(path) == (Argument("A1", text, "against", text),)


def test_accepts_crlf_a_missing_last_newline_and_the_older_spelling(tmp_path: Path):
    path = tmp_path / "a.tsv"
    path.write_bytes((HEADER + "A1\tc\tin favour of\tour favour\n" + ROW.replace("A1", "A2")[:-1]).encode())
    unix = read_arguments(path)
    assert [a.stance for a in unix] == ["in favor of", "against"]
    assert unix[0].premise == "our favour"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_arguments(path) == unix


def test_quotes_of_the_published_rows_survive(real_data: Path):
    by_id = {a.id: a for split in ("validation", "test") for a in read_arguments(real_data / f"arguments-{split}.tsv")}
    assert by_id["A32329"].premise.startswith('"marriage" isn\'t keeping up')
    for id in ("D27042", "D27043"):
        assert by_id[id].conclusion == '"Bullet for Bullet" is a right policy'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"", ": the file is empty, expected a header line", id="empty"),
        pytest.param(b"\xef\xbb\xbf" + (HEADER + ROW).encode(), ", line 1: the file starts with", id="bom"),
        pytest.param((HEADER + ROW).encode() + b"A2\tc\xe9\tagainst\tp\n", ", line 3: the byte 0xe9", id="latin-1"),
        pytest.param((HEADER + ROW).encode("utf-16"), ", line 1: the byte 0xff", id="utf-16"),
        pytest.param(
            (HEADER + ROW + "A2\tc\tagainst\tp\0\n").encode(), ", line 3: the line contains a NUL byte", id="nul"
        ),
        pytest.param(HEADER.encode(), ": the file has no rows below the header", id="no rows"),
        pytest.param(ROW.encode(), ", line 1: column 1 of the header is 'A1', expected 'Argument ID'", id="no header"),
        pytest.param(
            (HEADER.replace("Stance", "stance") + ROW).encode(),
            ", line 1: column 3 of the header is 'stance', expected 'Stance'",
            id="header",
        ),
        pytest.param(
            (HEADER + ROW).replace("\t", ",").encode(),
            ", line 1: the header has 1 column separated by tabs, expected 4",
            id="commas",
        ),
        pytest.param((HEADER + ROW + "A2\tc\tagainst\n").encode(), ", line 3: 3 columns", id="too few"),
        pytest.param((HEADER + "A2\tc\tagainst\tp\tq\n").encode(), ", line 2: 5 columns", id="too many"),
        pytest.param((HEADER + "\n" + ROW).encode(), ", line 2: 1 column", id="blank line"),
        pytest.param((HEADER + ROW + "\n").encode(), ", line 3: 1 column", id="blank end"),
        pytest.param(
            (HEADER + "A2\tc\tagainst\tp\rq\n").encode(), ", line 2: the line contains a carriage return", id="cr"
        ),
        pytest.param((HEADER + ROW + ROW).encode(), ", line 3: the Argument ID A1 is already in line 2", id="twice"),
        pytest.param((HEADER + "\tc\tagainst\tp\n").encode(), ", line 2: the Argument ID is empty", id="no id"),
        pytest.param(
            (HEADER + "A2\tc\tfor\tp\n").encode(), ", line 2: the stance of A2 is 'for', expected", id="stance"
        ),
        pytest.param((HEADER + "A2\tc\tagainst\t \n").encode(), ", line 2: the premise of A2 is empty", id="premise"),
        pytest.param((HEADER + "A2\t\tagainst\tp\n").encode(), ", line 2: the conclusion of A2 is", id="conclusion"),
        pytest.param(
            (HEADER + ROW + 'A2\t"""c"" d"\tagainst\tp\n').encode(),
            ", line 3: a field is in quotes with doubled quotes inside, as CSV writers write it; expected fields",
            id="quoted by a CSV writer",
        ),
        pytest.param(
            (HEADER + ROW + "A2\tc\tagainst\t \u200b\u2060\x07\u3000\n").encode(),
            ", line 3: the premise of A2 has only invisible characters",
            id="invisible",
        ),
    ],
)
def test_each_fault_is_one_sentence_and_the_file_stays(tmp_path: Path, content: bytes, problem: str):
    path = tmp_path / "a.tsv"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_arguments(path)
    assert str(caught.value).startswith(f"{path}{problem}")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content
    collected: list[str] = []
    read_arguments(path, on_problem=collected.append)
    assert collected == [str(caught.value)]


@pytest.mark.parametrize("text", ['"a"', '"a" and "b"', '"', '""', '""a""', '"a"" b', 'a ""b""', '"a "b" c"'])
def test_other_quotes_are_text(tmp_path: Path, text: str):
    path = tmp_path / "a.tsv"
    path.write_text(f"{HEADER}A1\t{text}\tagainst\t{text}\n")
    (argument,) = read_arguments(path)
    assert (argument.conclusion, argument.premise) == (text, text)


def test_published_rows_written_by_a_csv_writer_are_found(real_data: Path, tmp_path: Path):
    changed = 0
    for split, lines in (("training", 24), ("validation", 7), ("test", 9)):
        published = (real_data / f"arguments-{split}.tsv").read_bytes().decode().splitlines()
        path = tmp_path / f"arguments-{split}.tsv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="\t").writerows(line.split("\t") for line in published)
        written = path.read_bytes().decode().splitlines()
        different = [
            number for number, pair in enumerate(zip(published, written, strict=True), 1) if len(set(pair)) > 1
        ]
        problems: list[str] = []
        read_arguments(path, on_problem=problems.append)
        (problem,) = problems
        assert problem.startswith(f"{path}, line {different[0]}: a field is in quotes")
        assert f"so in {lines} lines; expected" in problem
        assert len(different) == lines
        with pytest.raises(UserError, match="as CSV writers write it"):
            load_split(split, dir=tmp_path)
        changed += len(different)
    assert changed == 40


def test_missing_file_and_folder(tmp_path: Path):
    with pytest.raises(UserError, match=r"a\.tsv: no such file$"):
        read_arguments(tmp_path / "a.tsv")
    with pytest.raises(UserError, match="cannot be read"):
        read_arguments(tmp_path)


def test_collecting_finds_every_fault(tmp_path: Path):
    path = tmp_path / "a.tsv"
    path.write_text(HEADER + "A1\tc\tfor\t\nA2\tc\tagainst\tp\nA1\t\tagainst\tp\n")
    problems: list[str] = []
    arguments = read_arguments(path, on_problem=problems.append)
    assert len(arguments) == 3
    assert [p.removeprefix(f"{path}, ").split(":")[0] for p in problems] == ["line 4", "line 2", "line 2", "line 4"]


def test_labels(tmp_path: Path):
    path = tmp_path / "l.tsv"
    path.write_text(LABELS + "A1\t0\t1\nA2\t1\t1\n")
    ids, labels = read_labels(path, ("x", "y"))
    assert ids == ("A1", "A2")
    assert labels.dtype == np.int8
    np.testing.assert_array_equal(labels, [[0, 1], [1, 1]])


@pytest.mark.parametrize("cell", ["2", "", "x", "1.0", " 1", "-1", "١"])
def test_a_label_is_0_or_1(tmp_path: Path, cell: str):
    path = tmp_path / "l.tsv"
    path.write_text(f"{LABELS}A1\t0\t1\nA2\t1\t{cell}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"l\.tsv, line 3: y of A2 is .*, expected 0 or 1$"):
        read_labels(path, ("x", "y"))
    problems: list[str] = []
    _, labels = read_labels(path, ("x", "y"), on_problem=problems.append)
    assert len(problems) == 1
    np.testing.assert_array_equal(labels, [[0, 1], [1, -1]])


def test_a_csv_writer_is_found_in_every_table(tmp_path: Path):
    path = tmp_path / "t.tsv"
    path.write_text('Category\tDescription\nFace\t"a ""good"" name"\nHedonism\t"to ""enjoy"" life"\n')
    with pytest.raises(UserError, match=r"t\.tsv, line 2: a field is in quotes .*, so in 2 lines; expected"):
        read_table(path, ("Category", "Description"))


def test_labels_in_another_order_are_refused(tmp_path: Path):
    path = tmp_path / "l.tsv"
    path.write_text("Argument ID\ty\tx\nA1\t0\t1\n")
    with pytest.raises(UserError, match=r"line 1: column 2 of the header is 'y', expected 'x'"):
        read_labels(path, ("x", "y"))


def test_write_then_read(tmp_path: Path):
    path = tmp_path / "t.tsv"
    write_table(path, (ID, "n"), (row for row in [("A1", 1), ("é", 0.25)]))
    assert path.read_bytes() == "Argument ID\tn\nA1\t1\né\t0.25\n".encode()
    assert read_table(path, (ID, "n")) == (("A1", "é"), [["1"], ["0.25"]])


@pytest.mark.parametrize(
    ("row", "error"),
    [(("A1", "a\tb"), UserError), (("A1", "a\nb"), UserError), (("A1", "a\0"), UserError), (("A1",), ValueError)],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, row: tuple, error: type[Exception]):
    path = tmp_path / "t.tsv"
    write_table(path, (ID, "n"), [("A1", "old")])
    before = path.read_bytes()
    with pytest.raises(error, match="line 3"):
        write_table(path, (ID, "n"), [("A0", "new"), row])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_rewriting_published_arguments_gives_the_same_bytes(real_data: Path, tmp_path: Path):
    published = real_data / "arguments-validation.tsv"
    rows = [(a.id, a.conclusion, a.stance, a.premise) for a in read_arguments(published)]
    write_table(tmp_path / "copy.tsv", ARGUMENT_HEADER, rows)
    assert (tmp_path / "copy.tsv").read_bytes() == published.read_bytes()
