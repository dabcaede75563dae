"""Run files of others: read by column name as the official evaluator reads them, or refused with one sentence."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import UserError
from jaxvalues.evaluation.decision import Decision
from jaxvalues.evaluation.named_columns import read_named_columns
from jaxvalues.evaluation.official import score
from jaxvalues.evaluation.scoring import score_files

HEADER = ("Argument ID", *CATEGORIES)
RNG = np.random.default_rng(0)
IDS = tuple(f"A{i:05d}" for i in range(40))
TRUTH = (RNG.random((40, 20)) < 0.3).astype(int)
RUN = (RNG.random((40, 20)) < 0.4).astype(int)


def text(ids: tuple[str, ...] = IDS, cells: np.ndarray = RUN, **writer: object) -> str:
    """A table of labels as Python's csv writer writes it."""
    file = io.StringIO(newline="")
    settings = {"delimiter": "\t", "lineterminator": "\n", **writer}
    csv.writer(file, **settings).writerows([HEADER, *([id, *row] for id, row in zip(ids, cells.tolist(), strict=True))])
    return file.getvalue()


def columns(order: list[int]) -> str:
    """The run with some of its columns, in this order; column 0 holds the IDs."""
    lines = (line.split("\t") for line in text().splitlines())
    return "".join("\t".join(line[i] for i in order) + "\n" for line in lines)


def official(truth: str, run: str) -> float:
    """The official F1 by the evaluator's own steps: a DictReader, counts by category name, means over categories."""
    true, predicted = (
        {row.pop("Argument ID"): row for row in csv.DictReader(io.StringIO(one, newline=""), delimiter="\t")}
        for one in (truth, run.removeprefix("\ufeff"))
    )
    precisions, recalls = [], []
    for name in CATEGORIES:
        relevant = {id for id, row in true.items() if row[name] == "1"}
        positive = {id for id, row in predicted.items() if row.get(name) == "1"}
        if relevant:
            precisions.append(len(relevant & positive) / len(positive) if positive else 0)
            recalls.append(len(relevant & positive) / len(relevant))
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 2 * precision * recall / (precision + recall)


REVERSED, SUBSET = [0, *range(20, 0, -1)], [0, 7, 3, 20, 1]
RUNS = {
    "the official format": text(),
    "other order": columns(REVERSED),
    "the ID last": columns([*range(1, 21), 0]),
    "a subset": columns(SUBSET),
    "a byte order mark": "\ufeff" + text(),
    "CR LF": text(lineterminator="\r\n"),
    "every cell quoted": text(quoting=csv.QUOTE_ALL),
    "texts quoted": text(quoting=csv.QUOTE_NONNUMERIC),
    "a blank last line": text() + "\n",
    "blank lines": text().replace("\nA00003", "\n\nA00003") + "\n\n",
    "no last line end": text().removesuffix("\n"),
    "all of it": "\ufeff" + columns(SUBSET).replace("Face", '"Face"').replace("\n", "\r\n") + "\r\n",
}


@pytest.mark.parametrize("case", RUNS)
def test_it_is_scored_as_the_official_evaluator_does(case: str, tmp_path: Path) -> None:
    truth, run = tmp_path / "labels-test.tsv", tmp_path / "run.tsv"
    truth.write_text(text(cells=TRUTH), encoding="utf-8")
    run.write_bytes(RUNS[case].encode())
    result = score_files(truth, run)
    assert result.scores.official_f1 == pytest.approx(official(text(cells=TRUTH), RUNS[case]), abs=1e-12)
    assert result.missing == 0
    subset = [CATEGORIES[i - 1] for i in SUBSET[1:]]
    absent = tuple(name for name in CATEGORIES if name not in subset) if case in ("a subset", "all of it") else ()
    assert result.absent == absent
    if absent:
        kept = np.where(np.isin(CATEGORIES, subset), RUN, 0)
        assert result.scores == score(TRUTH, kept)
        names = ", ".join(absent)
        assert result.notes == (
            f"{run} has no column for 16 of 20 categories; these count as never predicted: {names}.",
        )
        assert result.to_json()["absent_categories"] == list(absent)
    else:
        assert result.scores == score(TRUTH, RUN)
        assert result.notes == ()
        assert result.to_json() == result.scores.to_json()


def test_a_truth_is_read_alike(tmp_path: Path) -> None:
    truth, run = tmp_path / "labels-test.tsv", tmp_path / "run.tsv"
    run.write_text(text(), encoding="utf-8")
    for case, content in RUNS.items():
        truth.write_bytes(content.encode())
        result = score_files(truth, run)
        assert result.scores.official_f1 == 1
        if "subset" in case:
            assert [name for name in CATEGORIES if result.scores.categories[name].support] == [
                name for i, name in enumerate(CATEGORIES, start=1) if i in SUBSET
            ]
            assert (
                "has no column for 16 of 20 categories; these are not scored: Self-direction: action" in result.notes[0]
            )


def test_probabilities_are_read_by_name_too(tmp_path: Path) -> None:
    truth, run = tmp_path / "labels-test.tsv", tmp_path / "run.tsv"
    truth.write_text(text(cells=TRUTH), encoding="utf-8")
    lines = [line.replace("\t1", "\t0.31").replace("\t0\t", "\t3e-1\t") for line in columns(REVERSED).splitlines()[1:]]
    run.write_text("\n".join([columns(REVERSED).splitlines()[0], *lines]) + "\n", encoding="utf-8")
    assert score_files(truth, run, threshold=0.305).scores == score(TRUTH, RUN)


def test_an_absent_category_is_never_predicted_whatever_the_threshold(tmp_path: Path) -> None:
    truth, run = tmp_path / "labels-test.tsv", tmp_path / "run.tsv"
    truth.write_text(text(cells=TRUTH), encoding="utf-8")
    run.write_text(columns(SUBSET).replace("\t1", "\t0.5"), encoding="utf-8")
    Decision(np.full(20, -200.0), "one threshold").write(tmp_path)  # its probability is 0
    predicted = np.broadcast_to(np.isin(range(1, 21), SUBSET), RUN.shape)
    assert score_files(truth, run).scores == score(TRUTH, predicted)


def test_values_and_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "run.tsv"
    path.write_text('\ufeffFace\tArgument ID\n"1"\tA1\n\n 0 \tA2\n1.0\tA3\n', encoding="utf-8")
    ids, values, absent = read_named_columns(path, binary=True)
    assert ids == ("A1", "A2", "A3")
    assert values[:, CATEGORIES.index("Face")].tolist() == [1, 0, 1]
    assert values.sum() == 2
    assert len(absent) == 19


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda content: content.replace(old, new, 1)


FIRST = "A00000\t1"
WRONG = {
    "no category": (
        replaced("Hedonism", "Hedonisms"),
        "the column 'Hedonisms' is no category; did you mean 'Hedonism'?",
    ),
    "a blank after a name": (replaced("Face", "Face "), "the column 'Face ' is no category; did you mean 'Face'?"),
    "a column more": (lambda one: one.replace("\n", "\tx\n"), "the column 'x' is no category; expected one such as"),
    "a column twice": (replaced("Hedonism", "Face"), "line 1: the header names the column 'Face' twice"),
    "no IDs": (replaced("Argument ID", "Argument"), "line 1: no column is named 'Argument ID', only 'Argument', "),
    "only IDs": (lambda _: "Argument ID\nA1\n", "line 1: the header has only the column 'Argument ID'"),
    "commas": (lambda one: one.replace("\t", ","), "line 1: no column is named 'Argument ID', only 'Argument ID,S"),
    "no rows": (lambda one: one.split("\n", 1)[0], "the file has no rows below the header"),
    "nothing": (lambda _: "", "the file is empty, expected a header line with a column Argument ID"),
    "a row too short": (replaced("A00002\t1", "A00002"), "line 4: 20 cells separated by tabs, expected 21"),
    "an ID twice": (replaced("A00002", "A00001"), "line 4: the Argument ID A00001 is already in line 3"),
    "a blank ID": (replaced("A00002", " "), "line 4: the Argument ID is empty"),
    "underscores": (replaced(FIRST, "A00000\t1_0e-1"), "line 2: Self-direction: thought is '1_0e-1', but a number"),
    "Arabic digits": (replaced(FIRST, "A00000\t١"), "line 2: Self-direction: thought is '١', but a number between"),
    "not a number": (replaced(FIRST, "A00000\tnan"), "line 2: Self-direction: thought is 'nan', but"),
    "too large": (replaced(FIRST, "A00000\t1e999"), "line 2: Self-direction: thought is '1e999', but"),
    "no cell": (replaced(FIRST, "A00000\t"), "line 2: Self-direction: thought is '', but"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_sentence(case: str, tmp_path: Path) -> None:
    change, sentence = WRONG[case]
    path = tmp_path / "run.tsv"
    content = text(cells=np.ones_like(RUN))
    path.write_text(change(content), encoding="utf-8")
    assert change(content) != content
    with pytest.raises(UserError) as caught:
        read_named_columns(path)
    assert str(caught.value).startswith(str(path))
    assert sentence in str(caught.value)
    assert len(str(caught.value).removeprefix(str(tmp_path))) < 250


def test_a_truth_holds_only_0_and_1(tmp_path: Path) -> None:
    path = tmp_path / "labels.tsv"
    path.write_text(text(cells=np.ones_like(RUN)).replace("A00004\t1", "A00004\t0.5"), encoding="utf-8")
    with pytest.raises(UserError, match=r"line 6: Self-direction: thought is '0\.5', but 0 or 1 is expected"):
        read_named_columns(path, binary=True)
    assert read_named_columns(path).values[4, 0] == 0.5
