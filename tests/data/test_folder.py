"""Folders: the files of a split must agree, and a check finds everything that is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxvalues.data.arguments import SPLITS
from jaxvalues.data.folder import categories_of, check_folder, read_split
from jaxvalues.data.loading import load_split
from jaxvalues.data.taxonomy import CATEGORIES, VALUES
from jaxvalues.errors import UserError

ROWS = {"training": 5393, "validation": 1896, "test": 1576, "validation-zhihu": 100, "test-nahjalbalagha": 279}


def edit(file: str, change: Callable[[list[str]], None]) -> Callable[[Path], None]:
    """A fault: `change` is given the lines of `file`, header first."""

    def apply(folder: Path) -> None:
        lines = (folder / file).read_text(encoding="utf-8").splitlines()
        change(lines)
        (folder / file).write_text("\n".join(lines) + "\n", encoding="utf-8")

    return apply


def swap(lines: list[str]) -> None:
    lines[3], lines[4] = lines[4], lines[3]


def rename(lines: list[str]) -> None:
    lines[3] = "Z9" + lines[3][6:]


def clear(lines: list[str]) -> None:
    lines[2] = "\t".join([lines[2].split("\t")[0], *["0"] * len(VALUES)])


def quote(lines: list[str]) -> None:
    fields = lines[2].split("\t")
    lines[2] = "\t".join([*fields[:3], f'"{fields[3]} ""so"""'])


def double(lines: list[str]) -> None:
    lines.append("A99999" + lines[1][6:])


FAULTS = [
    pytest.param(edit("labels-training.tsv", swap), "labels-training.tsv, line 4: the ID is A00003", id="order"),
    pytest.param(edit("arguments-training.tsv", quote), "arguments-training.tsv, line 3: a field is in", id="CSV"),
    pytest.param(edit("labels-training.tsv", rename), "labels-training.tsv: no row for 1 argument of", id="other id"),
    pytest.param(edit("labels-training.tsv", lambda lines: lines.pop()), "no row for 1 argument", id="row missing"),
    pytest.param(edit("labels-training.tsv", double), "has 7 rows, expected 6 as in", id="row too many"),
    pytest.param(edit("level1-labels-training.tsv", swap), "level1-labels-training.tsv, line 4:", id="level 1 order"),
    pytest.param(edit("level1-labels-training.tsv", clear), "level1-labels-training.tsv, line 3: the values of A00001 "
                 "imply 0 for", id="level 1 disagrees"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "sentence"), FAULTS)
def test_files_that_do_not_agree(folder: Path, fault: Callable[[Path], None], sentence: str):
    assert check_folder(folder)[1] == []
    fault(folder)
    with pytest.raises(UserError) as caught:
        read_split(folder, "training")
    assert sentence in str(caught.value)
    splits, problems = check_folder(folder)
    assert problems == [str(caught.value)]
    assert list(splits) == list(ROWS)
    assert len(splits["training"]) == 6


def test_label_files_are_optional(folder: Path):
    (folder / "level1-labels-test.tsv").unlink()
    assert read_split(folder, "test").level1 is None
    (folder / "labels-test.tsv").unlink()
    assert read_split(folder, "test").labels is None
    assert check_folder(folder)[1] == []


def test_untrusted_labels_are_left_out_of_a_check(folder: Path):
    edit("labels-test.tsv", swap)(folder)
    splits, _ = check_folder(folder)
    assert splits["test"].labels is None
    assert splits["test"].level1 is not None


def test_missing_split_says_what_is_there(folder: Path, tmp_path: Path):
    with pytest.raises(
        UserError, match=r"test-nyt needs the file arguments-test-nyt\.tsv, but the folder contains only the splits tr"
    ):
        load_split("test-nyt", dir=folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="the folder contains no split"):
        load_split("test", dir=tmp_path / "empty")
    with pytest.raises(UserError, match="no such folder"):
        load_split("test", dir=tmp_path / "nowhere")
    with pytest.raises(UserError, match="there is no split 'train', expected one of training, validation"):
        load_split("train", dir=folder)


def test_check_finds_all_problems_of_a_folder(folder: Path, tmp_path: Path):
    edit("labels-training.tsv", swap)(folder)
    edit("arguments-test.tsv", lambda lines: lines.append("X1\tc\tnever\t"))(folder)
    shutil.copy(folder / "arguments-validation.tsv", folder / "arguments-dev.tsv")
    shutil.copy(folder / "arguments-validation.tsv", folder / "arguments-validation-zhihu.tsv")
    (folder / "arguments-test-nahjalbalagha.tsv").unlink()
    _, problems = check_folder(folder)
    expected = (
        "/labels-training.tsv, line 4: the ID is A00003, expected",
        "/arguments-test.tsv, line 8: the stance of X1",
        "/arguments-test.tsv, line 8: the premise of X1",
        "/labels-test.tsv: no row for 1 argument of",
        "/level1-labels-test.tsv: no row for 1 argument of",
        "/labels-validation-zhihu.tsv: no row for 6 arguments of",
        "/level1-labels-validation-zhihu.tsv: no row for 6 arguments of",
        "/labels-test-nahjalbalagha.tsv: the arguments of these labels are missing",
        "/level1-labels-test-nahjalbalagha.tsv: the arguments of these labels are missing",
        "/arguments-dev.tsv: the name contains no known split",
        "the splits validation and validation-zhihu share 6 IDs, the first is D00000",
    )
    assert len(problems) == len(expected)
    for problem, sentence in zip(problems, expected, strict=True):
        assert sentence in problem
    (tmp_path / "empty").mkdir()
    assert "contains no split" in check_folder(tmp_path / "empty")[1][0]


def test_labels_of_the_new_york_times_may_wait_for_their_texts(folder: Path):
    shutil.copy(folder / "labels-test.tsv", folder / "labels-test-nyt.tsv")
    assert check_folder(folder)[1] == []


def test_subset(folder: Path):
    split = load_split("training", dir=folder)
    few = split.subset(iter([4, 0]))
    assert (few.name, few.ids, len(few)) == ("training", ("A00004", "A00000"), 2)
    np.testing.assert_array_equal(few.labels, split.labels[[4, 0]])
    np.testing.assert_array_equal(few.level1, split.level1[[4, 0]])
    assert len(split.subset([])) == 0
    assert few.arguments[0].source == "A"


def test_or_over_values():
    level1 = np.zeros((3, len(VALUES)), np.int8)
    level1[1, [VALUES.index("Have privacy"), VALUES.index("Be independent"), VALUES.index("Be logical")]] = 1
    combined = categories_of(level1)
    assert combined.shape == (3, 20)
    assert [CATEGORIES[c] for c in np.flatnonzero(combined[1])] == [
        "Self-direction: action",
        "Universalism: objectivity",
    ]
    assert not combined[[0, 2]].any()


def test_sample_is_sound():
    for name in ("training", "validation", "test"):
        assert load_split(name, source="sample").labels is not None
    with pytest.raises(UserError, match="test-nyt"):
        load_split("test-nyt", source="sample")


def test_published_data(real_data: Path):
    splits, problems = check_folder(real_data)
    assert problems == []
    assert {name: len(splits[name]) for name in ROWS} == ROWS
    assert list(splits) == [name for name in SPLITS if name in splits]
    assert round(float(splits["training"].labels.sum(axis=1).mean()), 2) == 3.41
    assert splits["test"].arguments[0].source == "A"
