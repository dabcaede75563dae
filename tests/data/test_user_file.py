"""A user's own arguments, in files as Excel, LibreOffice, Google Sheets, pandas and editors write them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument
from jaxvalues.data.loading import load_split
from jaxvalues.data.user_file import UserFile, read_user_file
from jaxvalues.errors import UserError


def read(folder: Path, content: str | bytes, name: str = "mine.csv") -> UserFile:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_user_file(path)


WANTED = (
    Argument("A1", "Cars should be banned", IN_FAVOR, 'They pollute, and "SUVs" kill'),
    Argument("A2", "Nuclear power; a curse", AGAINST, "It is clean\nand safe: é 字"),
)
COMMA = (
    "Argument ID,Conclusion,Stance,Premise\n"
    'A1,Cars should be banned,in favor of,"They pollute, and ""SUVs"" kill"\n'
    'A2,Nuclear power; a curse,against,"It is clean\nand safe: é 字"\n'
)
SEMICOLON = (
    "Argument ID;Conclusion;Stance;Premise\r\n"
    'A1;Cars should be banned;in favor of;"They pollute, and ""SUVs"" kill"\r\n'
    'A2;"Nuclear power; a curse";against;"It is clean\nand safe: é 字"\r\n'
)
TABS = (
    SEMICOLON.replace('"Nuclear power; a curse"', "Nuclear power\x00 a curse").replace(";", "\t").replace("\x00", ";")
)
QUOTED = "2 cells are in quotes, as CSV writers write them: these quotes are removed"
WRITTEN = {
    "pandas to_csv": COMMA.encode(),
    "pandas to_csv, tabs": TABS.replace("\r\n", "\n").encode(),
    "Google Sheets": COMMA.replace("\n", "\r\n").replace("clean\r\n", "clean\n").encode().removesuffix(b"\r\n"),
    "Excel, CSV UTF-8, comma": codecs.BOM_UTF8 + COMMA.replace("\n", "\r\n").replace("clean\r\n", "clean\n").encode(),
    "Excel, CSV UTF-8, semicolon": codecs.BOM_UTF8 + SEMICOLON.encode(),
    "Excel, with a line that declares the delimiter": b"sep=;\r\n" + SEMICOLON.encode(),
    "Excel, Unicode text": codecs.BOM_UTF16_LE + TABS.encode("utf-16-le"),
    "big-endian UTF-16": codecs.BOM_UTF16_BE + TABS.encode("utf-16-be"),
    "LibreOffice, every text quoted": b'"Argument ID","Conclusion","Stance","Premise"\n'
    + COMMA.split("\n", 1)[1]
    .replace("A1,", '"A1",')
    .replace("Cars should be banned", '"Cars should be banned"')
    .encode(),
    "blank rows below, as spreadsheets write them": SEMICOLON.encode() + b";;;\r\n;;;\r\n",
}


@pytest.mark.parametrize("program", WRITTEN)
def test_the_same_arguments_whatever_wrote_them(program: str, tmp_path: Path) -> None:
    mine = read(tmp_path, WRITTEN[program])
    assert mine.arguments == WANTED
    assert mine.notes == ((QUOTED,) if mine.delimiter == "\t" else ())
    assert mine.has_all_stances
    assert mine.absent == set()


def test_the_published_format_reads_as_it_does_elsewhere(tmp_path: Path) -> None:
    rows = [
        'A1\tWe should ban it\tin favour of\t"Bullet for Bullet" is a right policy',
        'A2\t"marriage" isn\'t keeping up\tagainst\tand so "on',
    ]
    mine = read(tmp_path, "Argument ID\tConclusion\tStance\tPremise\n" + "\n".join(rows) + "\n", "a.tsv")
    assert [argument.premise for argument in mine.arguments] == ['"Bullet for Bullet" is a right policy', 'and so "on']
    assert mine.arguments[1].conclusion == '"marriage" isn\'t keeping up'
    assert mine.arguments[0].stance == IN_FAVOR
    assert mine.notes == ()


def test_quotes_that_a_csv_writer_added_to_tabs_are_removed_and_said(tmp_path: Path) -> None:
    rows = ['A1\tc\tagainst\t"it is ""good"""', "A2\tc\tagainst\tas it is"]
    mine = read(tmp_path, "Argument ID\tConclusion\tStance\tPremise\n" + "\n".join(rows) + "\n", "a.tsv")
    assert [argument.premise for argument in mine.arguments] == ['it is "good"', "as it is"]
    assert mine.notes == ("One cell is in quotes, as CSV writers write them: these quotes are removed",)


def test_the_sample_reads_as_the_data_set_does() -> None:
    from jaxvalues.data.loading import sample_folder

    with sample_folder() as folder:
        assert read_user_file(folder / "arguments-test.tsv").arguments == load_split("test", source="sample").arguments


def test_columns_in_any_order_and_case_and_others_beside(tmp_path: Path) -> None:
    mine = read(tmp_path, "note,PREMISE,argument_id, stance ,Conclusion,\nn1,p,7,AGAINST,c,\nn2,q,8,Pro,d,x\n")
    assert mine.arguments == (Argument("7", "c", AGAINST, "p"), Argument("8", "d", IN_FAVOR, "q"))
    assert mine.header == ("note", "PREMISE", "argument_id", "stance", "Conclusion", "column 6")
    assert mine.rows[1] == ("n2", "q", "8", "Pro", "d", "x")


def test_a_premise_is_enough(tmp_path: Path) -> None:
    mine = read(tmp_path, 'Premise\nGod, and our fathers; say so\n"quoted, as a whole"\n"not" as a whole\n')
    premises = ("God, and our fathers; say so", "quoted, as a whole", '"not" as a whole')
    assert mine.arguments == tuple(Argument(str(i), "", IN_FAVOR, text) for i, text in enumerate(premises, start=1))
    assert mine.notes == (
        "The file has no conclusion: it is left empty",
        'The file has no stance: it is taken to be "in favor of"',
        "The file has no column Argument ID: arguments are numbered from 1",
    )
    assert not mine.has_all_stances
    assert mine.delimiter == ","


def test_single_cells_may_be_blank(tmp_path: Path) -> None:
    mine = read(tmp_path, "id;premise;conclusion;stance\na;p;;\nb;q;\u200b;against\nc;r;d;against\n")
    assert [argument.conclusion for argument in mine.arguments] == ["", "", "d"]
    assert mine.notes == (
        "2 of 3 rows have no conclusion: it is left empty",
        'One row has no stance: it is taken to be "in favor of"',
    )
    assert not mine.has_all_stances


def test_old_line_ends(tmp_path: Path) -> None:
    assert [one.premise for one in read(tmp_path, b"premise\rone\rtwo\r").arguments] == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "mine.csv: the file is empty"),
        (b" \r\n\r\n", "mine.csv: the file is empty"),
        (b"sep=;", "mine.csv: the file is empty, expected a header line with a column Premise"),
        (b"sep=,\r\n", "mine.csv: the file is empty"),
        (b"PK\x03\x04rest", "mine.csv is a workbook"),
        (b"\xd0\xcf\x11\xe0rest", "is an old Excel workbook"),
        (b"Premise\n\x00\x01\n", "is a binary file"),
        (b"\x89PNG\x00\xff", "is a binary file"),
        (codecs.BOM_UTF16_LE + b"P\x00r\x00x", "is not UTF-16 throughout"),
        (
            "Premise\na\ncafé\n".encode("cp1252"),
            "mine.csv, line 3: the byte 0xe9 is not UTF-8: save it as CSV in UTF-8",
        ),
        ("Premise\n", "holds a header but no rows"),
        ("a text without a header\nand another\n", "line 1: no column is named Premise, only a text without a header"),
        ("a,b,c,d,e\n1,2,3,4,5\n", "no column is named Premise, only a, b, c and 2 more"),
        ("premise,note,Premise\na,b,c\n", "line 1: the header names the column Premise twice"),
        ("id,Argument ID,Premise\na,b,c\n", "line 1: the header names the column Argument ID twice"),
        ("premise,note\na,b\nc\n", "line 3: 1 cell separated by commas, expected 2"),
        ('premise,note\n"a\nb",c\nd,e,f\n', "line 4: 3 cells separated by commas, expected 2"),
        ("premise,note\na,b\n ,c\n", "line 3: the premise is empty"),
        ("premise,note\na,b\n\u200b,c\n", "line 3: the premise holds invisible characters only"),
        ("premise,stance\na,maybe\n", "line 2: the stance is 'maybe', expected 'in favor of' or 'against'"),
        ("id,premise\nA1,x\nA2,y\nA1,z\n", "line 4: the Argument ID A1 stands in line 2 already"),
        ("id,premise\nA1,x\n ,y\n", "line 3: the Argument ID is empty"),
        ('id,premise\n"A\n1",x\n', "line 2: the Argument ID holds a tab or a line break"),
    ],
)
def test_what_is_wrong_is_one_sentence(content: str | bytes, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, content)
    message = str(caught.value)
    assert sentence in message
    assert message.startswith(str(tmp_path / "mine.csv"))
    assert "\n" not in message
    assert len(message) - len(str(tmp_path)) < 300


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.csv: no such file"):
        read_user_file(tmp_path / "mine.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_user_file(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "Premise,Stance,Comment (why; how)\nThey pollute,against,x\n",
        '"Premise", "Stance"\n"They pollute", "against"\n',
        '"Premise" ;"Stance"\n "They pollute"; "against" \n',
        "Premise;Stance,\nThey pollute;against\n".replace("Stance,", "Stance"),
    ],
)
def test_the_delimiter_is_the_one_that_fits_all_rows_and_blanks_stand_outside_quotes(
    tmp_path: Path, content: str
) -> None:
    (one,) = read(tmp_path, content).arguments
    assert (one.premise, one.stance) == ("They pollute", AGAINST)


def test_blanks_beside_a_quote_that_closes_nothing_stay(tmp_path: Path) -> None:
    (one,) = read(tmp_path, 'Premise,note\n "They" pollute,x\n').arguments
    assert one.premise == ' "They" pollute'
