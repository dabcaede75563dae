from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from jaxvalues.data.describe import describe_folder, render
from jaxvalues.data.folder import read_split
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import UserError


def printed(folder: Path, width: int) -> str:
    stream = io.StringIO()
    render(describe_folder(folder), Console(file=stream, width=width))
    return stream.getvalue()


def test_figures(folder: Path):
    split = read_split(folder, "training")
    summary = describe_folder(folder).splits[0]
    assert (summary.name, summary.rows, summary.sources) == ("training", 6, {"A": 6})
    assert list(summary.counts.items()) == list(zip(CATEGORIES, split.labels.sum(axis=0), strict=True))
    assert summary.mean_labels == pytest.approx(split.labels.sum() / 6)
    assert summary.published is False
    assert (summary.words.mean, summary.words.median, summary.words.max) == (4 + 2 + 5, 11, 12)


def test_repeated_arguments_shared_conclusions_and_rows_without_label(folder: Path):
    path = folder / "arguments-test.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[2] = lines[2][:7] + lines[1][7:]
    lines[3] = lines[3].replace("We should do E00002", "we should do A00000.")  # the same conclusion as in training
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "level1-labels-test.tsv").unlink()
    labels = folder / "labels-test.tsv"
    lines = labels.read_text(encoding="utf-8").splitlines()
    lines[1] = "\t".join(["E00000", *"0" * 20])
    labels.write_text("\n".join(lines) + "\n", encoding="utf-8")
    summary = describe_folder(folder)
    test = summary.splits[2]
    assert (summary.problems, summary.shared_conclusions) == ((), 1)
    assert (test.name, test.repeated, test.without_label) == ("test", 1, 1)
    assert "1 conclusion occurs in more than one split" in printed(folder, 80)


def test_conclusions_that_count_as_one_are_counted(folder: Path):
    assert "count as one" not in printed(folder, 80)
    path = folder / "arguments-training.tsv"
    text = path.read_text(encoding="utf-8")
    text = text.replace("We should do A00002", "We should do A00001.").replace(
        "We should do A00003", "WE should do A00001"
    )
    path.write_text(text, encoding="utf-8")
    training, validation, *_ = describe_folder(folder).splits
    assert (training.conclusion_texts, training.conclusions) == (6, 4)
    assert (validation.conclusion_texts, validation.conclusions) == (6, 6)
    said = " ".join(printed(folder, 80).split())
    assert "differ only in case, punctuation or blanks count as one" in said
    assert "held out together: 6 texts of training are 4 conclusions." in said


def test_unlabelled_and_broken_splits(folder: Path):
    (folder / "labels-test.tsv").unlink()
    (folder / "level1-labels-test.tsv").unlink()
    (folder / "arguments-validation.tsv").write_bytes(b"")
    summary = describe_folder(folder)
    assert [s.name for s in summary.splits] == ["training", "test", "validation-zhihu", "test-nahjalbalagha"]
    assert (summary.splits[1].counts, summary.splits[1].mean_labels, summary.splits[1].without_label) == (None,) * 3
    assert [p.split(": ")[1] for p in summary.problems] == ["the file is empty, expected a header line"]
    assert "the file is empty, expected a header line" in printed(folder, 80)
    with pytest.raises(UserError, match="no such folder"):
        describe_folder(folder / "nowhere")


@pytest.mark.parametrize("width", [80, 100, 120])
def test_tables_fit_and_lose_nothing(folder: Path, width: int):
    text = printed(folder, width)
    tables = text.split("\n", 1)[1]  # below the path, which may be long
    assert max(map(len, tables.splitlines())) <= width
    assert "…" not in text
    assert "No problems found." in text
    for name in (*CATEGORIES, "test-nahjalbalagha", "Conference on"):
        assert name in text


def test_many_problems_are_cut_short(folder: Path):
    path = folder / "labels-training.tsv"
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    rows = ["\t".join([row.split("\t")[0], *"2" * 20]) for row in rows]
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    assert len(describe_folder(folder).problems) == 120
    assert printed(folder, 80).count("expected 0 or 1") == 20
    assert "... and 100 more problems." in printed(folder, 80)


def test_published_data(real_data: Path, tmp_path: Path):
    summary = describe_folder(real_data)
    splits = {s.name: s for s in summary.splits}
    assert summary.problems == ()
    assert summary.shared_conclusions == 0
    assert [splits[name].repeated for name in ("training", "validation", "test")] == [80, 33, 28]
    joined = [(splits[name].conclusion_texts, splits[name].conclusions) for name in ("training", "validation", "test")]
    assert joined == [(332, 318), (157, 150), (106, 103)]
    assert [round(splits[name].mean_labels, 2) for name in ("training", "validation", "test")] == [3.41, 3.35, 3.03]
    assert (splits["training"].without_label, splits["training"].words.max) == (1, 144)
    assert all(s.published for s in summary.splits)
    for file in ("arguments-test.tsv", "labels-test.tsv"):
        shutil.copyfile(real_data / file, tmp_path / file)
    assert describe_folder(tmp_path).splits[0].published is True
    with (tmp_path / "labels-test.tsv").open("r+b") as labels:
        labels.seek(-2, 2)
        last = labels.read(1)
        labels.seek(-2, 2)
        labels.write(b"0" if last == b"1" else b"1")
    assert describe_folder(tmp_path).splits[0].published is False
