"""The embedded sample, read by plain splitting: a fault in the package's reader cannot hide one in the files."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

SPLITS = {"training": 210, "validation": 60, "test": 60}  # split -> fewest arguments
FEWEST_OF_EACH_CATEGORY = {"training": 20, "validation": 5, "test": 5}
CATEGORIES = [
    "Self-direction: thought",
    "Self-direction: action",
    "Stimulation",
    "Hedonism",
    "Achievement",
    "Power: dominance",
    "Power: resources",
    "Face",
    "Security: personal",
    "Security: societal",
    "Tradition",
    "Conformity: rules",
    "Conformity: interpersonal",
    "Humility",
    "Benevolence: caring",
    "Benevolence: dependability",
    "Universalism: concern",
    "Universalism: nature",
    "Universalism: tolerance",
    "Universalism: objectivity",
]


def read(kind: str, split: str) -> list[list[str]]:
    """The rows of one file, the header first; a stray tab or line break shows as a row of another width."""
    text = (files("jaxvalues.data") / "sample" / f"{kind}-{split}.tsv").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [line.split("\t") for line in text[:-1].split("\n")]


ARGUMENTS = {split: read("arguments", split) for split in SPLITS}
LABELS = {split: read("labels", split) for split in SPLITS}
EVERY_ARGUMENT = [row for rows in ARGUMENTS.values() for row in rows[1:]]


@pytest.mark.parametrize("split", SPLITS)
def test_arguments_are_complete_and_well_formed(split: str) -> None:
    header, *rows = ARGUMENTS[split]
    assert header == ["Argument ID", "Conclusion", "Stance", "Premise"]
    assert len(rows) >= SPLITS[split]
    for row in rows:
        assert len(row) == 4, row
        assert row == [" ".join(field.split()) for field in row], row
        assert row[2] in {"in favor of", "against"}, row
        assert 8 <= len(row[3].split()) <= 30, row
    assert {row[2] for row in rows} == {"in favor of", "against"}


@pytest.mark.parametrize("split", SPLITS)
def test_labels_belong_to_the_arguments(split: str) -> None:
    header, *rows = LABELS[split]
    assert header == ["Argument ID", *CATEGORIES]
    assert [row[0] for row in rows] == [row[0] for row in ARGUMENTS[split][1:]]
    for row in rows:
        assert len(row) == 21, row
        assert set(row[1:]) <= {"0", "1"}, row
        assert 1 <= row[1:].count("1") <= 5, row


@pytest.mark.parametrize("split", SPLITS)
def test_every_category_is_frequent_enough(split: str) -> None:
    columns = zip(*LABELS[split][1:], strict=True)
    next(columns)  # the identifiers
    counts = {name: column.count("1") for name, column in zip(CATEGORIES, columns, strict=True)}
    assert {name: n for name, n in counts.items() if n < FEWEST_OF_EACH_CATEGORY[split]} == {}
    assert 2 <= sum(counts.values()) / len(LABELS[split][1:]) <= 4


def test_identifiers_are_unique_over_all_splits() -> None:
    identifiers = [row[0] for row in EVERY_ARGUMENT]
    assert len(set(identifiers)) == len(identifiers)
    assert [i for i in identifiers if not re.fullmatch(r"S\d{5}", i)] == []


def test_no_premise_occurs_twice() -> None:
    premises = [row[3].lower() for row in EVERY_ARGUMENT]
    assert len(set(premises)) == len(premises)


def test_splits_share_no_conclusion() -> None:
    conclusions = {split: {row[1].lower() for row in rows[1:]} for split, rows in ARGUMENTS.items()}
    assert sum(map(len, conclusions.values())) == len(set.union(*conclusions.values()))


def test_readme_states_the_counts() -> None:
    readme = (files("jaxvalues.data") / "sample" / "README.md").read_text(encoding="utf-8")
    for split, (_, *rows) in ARGUMENTS.items():
        stances = [row[2] for row in rows]
        expected = [len(rows), len({row[1] for row in rows}), stances.count("in favor of"), stances.count("against")]
        (line,) = [line for line in readme.splitlines() if line.startswith(f"| {split} ")]
        assert [int(cell) for cell in line.split("|")[2:6]] == expected
