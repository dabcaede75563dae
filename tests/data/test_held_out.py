"""Holding out and cutting folds: disjoint parts, whole conclusions, the same every time, near the sizes asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxvalues.config import DataConfig
from jaxvalues.data.arguments import IN_FAVOR, Argument, Split
from jaxvalues.data.conclusions import group_by_conclusion, normalize_conclusion
from jaxvalues.data.held_out import cut_folds, hold_out, load_parts
from jaxvalues.data.loading import load_split
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.tsv import ARGUMENT_HEADER, write_table
from jaxvalues.errors import ConfigError


def split_of(sizes: list[int]) -> Split:
    """Conclusion k has sizes[k] arguments, spread over the file; label 0 of argument i is i % 2."""
    conclusions = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    arguments = tuple(Argument(f"A{i}", f"conclusion {c}", IN_FAVOR, "p") for i, c in enumerate(conclusions))
    labels = np.repeat(np.arange(len(arguments))[:, None] % 2, 20, axis=1).astype(np.int8)
    return Split("training", arguments, labels)


SPLIT = split_of([1, 9, 2, 4, 30, 3, 3, 5, 1, 8, 6, 2, 7, 11, 8])


@pytest.mark.parametrize("by", ["conclusion", "argument"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_the_parts_are_disjoint_complete_ordered_and_near_the_fraction(by: str, fraction: float) -> None:
    rest, held = hold_out(SPLIT, fraction, by)
    assert not set(rest.ids) & set(held.ids)
    assert {*rest.ids, *held.ids} == set(SPLIT.ids)
    for part in (rest, held):
        rows = [int(id[1:]) for id in part.ids]
        assert rows == sorted(rows)
        assert part.labels[:, 0].tolist() == [row % 2 for row in rows]  # labels stay with their rows
    # By conclusion, the nearest that whole conclusions (of at most 30 of the 100 arguments) can come to it.
    assert abs(len(held) - fraction * len(SPLIT)) <= (0.5 if by == "argument" else 15)


def test_by_conclusion_no_conclusion_is_in_both_parts() -> None:
    for seed in range(10):
        rest, held = hold_out(SPLIT, 0.3, "conclusion", seed)
        assert not {a.conclusion for a in rest.arguments} & {a.conclusion for a in held.arguments}


def test_other_spellings_of_a_conclusion_are_in_the_same_part() -> None:
    spellings = (
        "We should have a national language",
        "We should have a National language.",
        " we SHOULD have a national\tlanguage ",
    )
    others = [f"conclusion {number}" for number in range(12)]
    arguments = [Argument(f"A{i}", text, IN_FAVOR, "p") for i, text in enumerate([*spellings, *others] * 2)]
    split = Split("training", tuple(arguments), np.ones((len(arguments), 20), np.int8))
    sides = set()
    for seed in range(20):
        _, held = hold_out(split, 0.4, seed=seed)
        there = [argument.conclusion in spellings for argument in held.arguments]
        assert sum(there) in (0, 6)
        sides.add(any(there))
        fold = cut_folds(split, 4, seed=seed)
        assert len({fold[i] for i, one in enumerate(arguments) if one.conclusion in spellings}) == 1
    assert sides == {True, False}


@pytest.mark.parametrize("by", ["conclusion", "argument"])
def test_the_seed_alone_decides_which(by: str) -> None:
    parts = [hold_out(SPLIT, 0.3, by, seed)[1].ids for seed in (0, 0, 1, 2, 3)]
    assert parts[0] == parts[1]
    assert len(set(parts)) == 4


@pytest.mark.parametrize("by", ["conclusion", "argument"])
def test_an_empty_part_is_an_error(by: str) -> None:
    with pytest.raises(ConfigError, match="leaves one part empty"):
        hold_out(split_of([2, 2]), 0.01, by)


# What no cut into whole conclusions can better: one of them has 30 of the 100 arguments.
BALANCED = {2: [50, 50], 3: [34, 33, 33], 4: [30, 24, 23, 23], 5: [30, 18, 18, 17, 17]}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("count", BALANCED)
def test_folds_are_as_balanced_as_whole_conclusions_allow(count: int, seed: int) -> None:
    fold = cut_folds(SPLIT, count, seed=seed)
    assert sorted(np.bincount(fold), reverse=True) == BALANCED[count]
    pairs = {(argument.conclusion, number) for argument, number in zip(SPLIT.arguments, fold, strict=True)}
    assert len(pairs) == 15  # each conclusion in one fold


def test_folds_of_arguments_differ_by_at_most_one() -> None:
    for count in (2, 3, 7, 99, 100):
        rows = np.bincount(cut_folds(SPLIT, count, "argument"), minlength=count)
        assert rows.max() - rows.min() <= 1


@pytest.mark.parametrize("by", ["conclusion", "argument"])
def test_folds_follow_the_seed_and_not_the_order_of_the_file(by: str) -> None:
    folds = [cut_folds(SPLIT, 4, by, seed).tolist() for seed in (0, 0, 1, 2)]
    assert folds[0] == folds[1]
    assert len({tuple(fold) for fold in folds}) == 3
    if by == "conclusion":
        order = np.random.default_rng(1).permutation(len(SPLIT))
        assert np.array_equal(cut_folds(SPLIT.subset(order), 4, by), np.array(folds[0])[order])


def test_a_run_holds_out_one_fold_and_trains_on_the_others() -> None:
    config = DataConfig(source="sample", folds=3)
    parts = [load_parts(config.model_copy(update={"fold": fold})) for fold in range(3)]
    whole = load_split("training", source="sample")
    assert sorted(id for one in parts for id in one.held_out.ids) == sorted(whole.ids)
    for one in parts:
        assert not set(one.training.ids) & set(one.held_out.ids)
        assert {*one.training.ids, *one.held_out.ids} == set(one.full_training.ids) == set(whole.ids)
        assert not {a.conclusion for a in one.training.arguments} & {a.conclusion for a in one.held_out.arguments}
        assert one.pool is one.full_training
        assert set(one.by_name) == {"training", "held_out", "validation", "test"}


def test_more_folds_than_there_are_parts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.folds is 16, but the 100 arguments of training have only 15 concl"):
        cut_folds(SPLIT, 16)
    with pytest.raises(ConfigError, match=r"data\.folds is 101, but training has only 100 arguments"):
        cut_folds(SPLIT, 101, "argument")
    with pytest.raises(ConfigError, match=r"data\.folds is 3 and data\.fold is not given: .* the folds 0 to 2"):
        load_parts(DataConfig(source="sample", folds=3))


def test_on_the_real_training_split(real_data: Path) -> None:
    training = load_split("training", dir=real_data)
    rest, held = hold_out(training, 0.1)
    sides = ({normalize_conclusion(a.conclusion) for a in part.arguments} for part in (rest, held))
    assert not set.intersection(*sides)
    assert len(rest) + len(held) == len(training) == 5393
    _, sizes = group_by_conclusion(training.arguments)
    assert abs(len(held) - 539.3) <= sizes.max() / 2
    for count in (3, 5, 10):
        rows = np.bincount(cut_folds(training, count))
        assert rows.max() - rows.min() <= 1


def test_a_held_out_part_without_any_label_is_refused(tmp_path: Path) -> None:
    """Nothing can be chosen on it; in the stance, no label is a class of its own."""
    arguments = [("A1", "a", "against", "p"), ("A2", "b", "against", "q")]
    write_table(tmp_path / "arguments-training.tsv", ARGUMENT_HEADER, arguments)
    labels = [(id, *[value] * 20) for id, value in (("A1", 1), ("A2", 0))]
    write_table(tmp_path / "labels-training.tsv", ("Argument ID", *CATEGORIES), labels)

    def held_out(seed: int, task: str) -> tuple[str, ...]:
        config = DataConfig(dir=str(tmp_path), held_out=0.5, report=[], held_out_seed=seed, task=task)
        return load_parts(config).held_out.ids

    of_seed = {held_out(seed, "stance"): seed for seed in range(8)}
    assert held_out(of_seed["A1",], "values") == ("A1",)
    with pytest.raises(ConfigError, match=r"data\.held_out: all labels of the 1 held-out argument are 0, so no step"):
        held_out(of_seed["A2",], "values")
