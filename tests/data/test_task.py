"""The tasks: their columns, and the labels that arguments have for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxvalues.config import DataConfig
from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument, Split
from jaxvalues.data.held_out import load_parts
from jaxvalues.data.loading import load_split
from jaxvalues.data.subset import few_shot, scarce_classes
from jaxvalues.data.task import STANCE, TASKS, VALUES
from jaxvalues.data.taxonomy import CATEGORIES

STANCES = (IN_FAVOR, AGAINST, AGAINST, IN_FAVOR, IN_FAVOR)
ARGUMENTS = tuple(Argument(f"A{i}", "c", stance, "p") for i, stance in enumerate(STANCES))


def test_values_are_what_the_data_set_comes_with() -> None:
    split = load_split("training", source="sample")
    assert VALUES.relabel(split) is split
    assert VALUES.labels == VALUES.classes == CATEGORIES
    assert np.array_equal(VALUES.class_membership(split.labels), split.labels == 1)
    assert VALUES.has_categories


def test_a_stance_is_1_where_the_premise_is_in_favor() -> None:
    split = Split("test", ARGUMENTS)  # without labels of values, which it does not need
    labelled = STANCE.relabel(split)
    assert labelled.labels.tolist() == [[1], [0], [0], [1], [1]]
    assert (labelled.labels.dtype, labelled.level1) == (np.int8, None)
    assert (labelled.name, labelled.arguments, split.labels) == ("test", ARGUMENTS, None)
    assert (STANCE.labels, STANCE.has_categories) == ((IN_FAVOR,), False)
    assert STANCE.relabel(Split("empty", ())).labels.shape == (0, 1)


def test_shots_of_a_stance_are_of_both() -> None:
    split = STANCE.relabel(Split("training", ARGUMENTS))
    assert STANCE.classes == (IN_FAVOR, AGAINST)
    drawn = few_shot(split, 1, task=STANCE)
    assert sorted(argument.stance for argument in drawn.arguments) == [AGAINST, IN_FAVOR]
    assert scarce_classes(few_shot(split, 3, task=STANCE), 3, STANCE) == {AGAINST: 2}


def test_the_parts_of_a_run_have_the_labels_of_its_task() -> None:
    parts = load_parts(DataConfig(source="sample", task="stance", shots=5, report=("test",)))
    for split in (parts.training, parts.held_out, *parts.reported):
        assert split.labels[:, 0].tolist() == [argument.stance == IN_FAVOR for argument in split.arguments]
    assert "5 of each stance" in parts.subset_note
    assert parts.training.ids != load_parts(DataConfig(source="sample", shots=5, report=("test",))).training.ids


def test_the_config_knows_the_same_tasks() -> None:
    for name in TASKS:
        assert TASKS[DataConfig(task=name).task].name == name


@pytest.mark.parametrize(("split", "majority"), [("training", 0.537), ("validation", 0.558), ("test", 0.551)])
def test_the_majority_of_the_published_data_is_the_studys(split: str, majority: float, real_data: Path) -> None:
    labels = STANCE.relabel(load_split(split, dir=real_data)).labels
    assert round(float(labels.mean()), 3) == majority
