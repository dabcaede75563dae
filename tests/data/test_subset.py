"""Few shots, fractions and pairs: as many as asked for, drawn by the seed alone, from the training part alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxvalues.config import DataConfig
from jaxvalues.data.arguments import IN_FAVOR, Argument, Split
from jaxvalues.data.held_out import load_parts
from jaxvalues.data.loading import load_split
from jaxvalues.data.subset import count_pairs, few_shot, sample_pairs, scarce_classes, take_fraction
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import ConfigError


def split_of(labels: np.ndarray) -> Split:
    arguments = tuple(Argument(f"A{i}", f"conclusion {i}", IN_FAVOR, "p") for i in range(len(labels)))
    return Split("training", arguments, labels.astype(np.int8))


RARITY = np.linspace(0.02, 0.4, 20)[np.random.default_rng(1).permutation(20)]
SPLIT = split_of(np.random.default_rng(0).random((400, 20)) < RARITY)


def rows(split: Split) -> list[int]:
    return [int(id[1:]) for id in split.ids]


@pytest.mark.parametrize("shots", [1, 5, 20])
def test_every_category_has_its_shots_or_all_there_are(shots: int) -> None:
    drawn = few_shot(SPLIT, shots)
    there, had = drawn.labels.sum(0), SPLIT.labels.sum(0)
    assert (there >= np.minimum(shots, had)).all()
    assert rows(drawn) == sorted(set(rows(drawn)))
    assert np.array_equal(drawn.labels, SPLIT.labels[rows(drawn)])
    assert scarce_classes(drawn, shots) == {c: n for c, n in zip(CATEGORIES, had.tolist(), strict=True) if n < shots}
    assert bool(scarce_classes(drawn, shots)) == (shots == 20)


def test_an_argument_counts_for_every_category_it_has() -> None:
    # Three arguments have the rare category; all have the frequent one, which they fill up.
    labels = np.zeros((100, 20), np.int8)
    labels[:, 0] = 1
    labels[[10, 20, 30], 1] = 1
    labels[20, 2] = 1
    drawn = few_shot(split_of(labels), 3)
    assert rows(drawn) == [10, 20, 30]
    assert scarce_classes(drawn, 3) == {"Stimulation": 1} | dict.fromkeys(CATEGORIES[3:], 0)
    assert len(few_shot(split_of(labels), 4)) == 4  # one more, of the frequent category


def test_no_more_are_drawn_than_categories_ask_for() -> None:
    labels = np.repeat(np.eye(20, dtype=np.int8), 10, axis=0)
    drawn = few_shot(split_of(labels), 5)
    assert drawn.labels.sum(0).tolist() == [5] * 20
    assert few_shot(split_of(labels), 10).ids == split_of(labels).ids


@pytest.mark.parametrize("draw", [lambda seed: few_shot(SPLIT, 5, seed), lambda seed: take_fraction(SPLIT, 0.2, seed)])
def test_the_seed_alone_decides_which(draw) -> None:
    drawn = [draw(seed).ids for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_a_smaller_fraction_is_part_of_a_larger_one() -> None:
    parts = [take_fraction(SPLIT, fraction, 3) for fraction in (0.1, 0.25, 1.0)]
    assert [len(part) for part in parts] == [40, 100, 400]
    assert set(parts[0].ids) < set(parts[1].ids)
    assert parts[2].ids == SPLIT.ids
    assert rows(parts[1]) == sorted(rows(parts[1]))
    assert np.array_equal(parts[1].labels, SPLIT.labels[rows(parts[1])])


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"data\.fraction: 0\.001 of the 400 arguments of training is none"):
        take_fraction(SPLIT, 0.001)
    with pytest.raises(ConfigError, match=r"data\.shots: no argument of training has any category"):
        few_shot(split_of(np.zeros((3, 20))), 1)


@pytest.mark.parametrize("held_out", [0.3, "validation"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shots": 1, "subset_seed": 4}, "1 of each category{} (seed 4)"),
        ({"fraction": 0.5}, "0.5 of all{} (seed 0)"),
    ],
)
def test_labels_are_as_scarce_where_a_run_chooses_as_where_it_trains(held_out: Any, change: Any, said: str) -> None:
    common = {"source": "sample", "held_out": held_out, "report": ("test",)}
    whole, parts = load_parts(DataConfig(**common)), load_parts(DataConfig(**common, **change))
    assert whole.subset_note is None
    assert set(parts.training.ids) < set(whole.training.ids)
    assert set(parts.held_out.ids) < set(whole.held_out.ids)
    if "shots" in change:
        for part, all_of_it in ((parts.training, whole.training), (parts.held_out, whole.held_out)):
            assert scarce_classes(part, 1) == scarce_classes(all_of_it, 1)
            assert len(part) <= 20
    else:
        assert len(parts.held_out) == round(len(whole.held_out) / 2)
    conclusions = [{argument.conclusion for argument in part.arguments} for part in (parts.training, parts.held_out)]
    assert held_out == "validation" or not conclusions[0] & conclusions[1]
    assert parts.pool.ids == whole.pool.ids
    assert parts.full_training.ids == whole.full_training.ids
    assert [split.ids for split in parts.reported] == [split.ids for split in whole.reported]

    few = scarce_classes(parts.held_out, 1) if "shots" in change else {}
    fewer = f"; fewer of {', '.join(f'{name} ({count})' for name, count in few.items())}" if few else ""
    first, second = parts.subset_note.split("\n")
    assert first == f"trains on {len(parts.training)} of {len(whole.training)} arguments: {said.format('')}"
    assert second == (
        f"chooses thresholds and the best step on {len(parts.held_out)} of {len(whole.held_out)} held-out arguments: "
        + said.format(fewer)
    )


@pytest.mark.parametrize("change", [{"shots": 1}, {"fraction": 0.5}])
def test_a_run_may_choose_on_all_that_is_held_out(change: Any) -> None:
    whole = load_parts(DataConfig(source="sample"))
    parts = load_parts(DataConfig(source="sample", full_held_out=True, **change))
    assert set(parts.training.ids) < set(whole.training.ids)
    assert parts.held_out.ids == whole.held_out.ids
    assert parts.subset_note.endswith(f"on all {len(whole.held_out)} held-out arguments (data.full_held_out)")


def test_a_run_says_which_categories_have_too_few() -> None:
    parts = load_parts(DataConfig(source="sample", shots=30))
    few = scarce_classes(parts.training, 30)
    assert few == scarce_classes(load_parts(DataConfig(source="sample")).training, 30)
    for category, count in few.items():
        assert f"{category} ({count})" in parts.subset_note
    assert few


def test_five_shots_choose_on_five_shots_of_other_conclusions(real_data: Path) -> None:
    parts = load_parts(DataConfig(dir=str(real_data), shots=5))
    whole = load_parts(DataConfig(dir=str(real_data)))
    for part in (parts.training, parts.held_out):
        assert 20 <= len(part) <= 100
        assert set(scarce_classes(part, 5)) <= {"Conformity: interpersonal"}  # of which the held-out part has two
    assert len(whole.held_out) > 450
    sides = [{argument.conclusion for argument in part.arguments} for part in (parts.training, parts.held_out)]
    assert not sides[0] & sides[1]


def test_five_shots_of_the_real_data(real_data: Path) -> None:
    training = load_split("training", dir=real_data)
    drawn = few_shot(training, 5)
    assert drawn.labels.sum(0).min() == 5
    assert 20 <= len(drawn) <= 100
    assert not scarce_classes(drawn, 5)


def test_without_a_ratio_every_pair_is_asked() -> None:
    argument, category = sample_pairs(SPLIT.labels, None, 0)
    assert np.array_equal(argument, np.repeat(np.arange(400), 20))
    assert np.array_equal(category, np.tile(np.arange(20), 400))


@pytest.mark.parametrize("negatives", [0.5, 1.0, 3.0])
def test_pairs_are_all_positives_and_so_many_different_negatives(negatives: float) -> None:
    positives = int(SPLIT.labels.sum())
    argument, category = sample_pairs(SPLIT.labels, negatives, 0)
    asked = SPLIT.labels[argument, category]
    assert asked.sum() == positives
    assert (asked == 0).sum() == round(negatives * positives)
    assert len(argument) == count_pairs(SPLIT.labels, negatives)
    assert len(set(zip(argument.tolist(), category.tolist(), strict=True))) == len(argument)
    assert (np.diff(argument) >= 0).all()  # what is asked about an argument stands together


def test_negatives_are_no_more_than_there_are_and_the_seed_decides_which() -> None:
    assert len(sample_pairs(SPLIT.labels, 1000.0, 0)[0]) == 400 * 20
    drawn = [tuple(map(tuple, sample_pairs(SPLIT.labels, 1.0, seed))) for seed in (0, 0, 1, (0, 1))]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3
    assert len(sample_pairs(np.zeros((3, 20), np.int8), 2.0, 0)[0]) == 0


def test_negatives_are_drawn_evenly_over_the_split() -> None:
    labels = np.zeros((200, 20), np.int8)
    labels[:100, 0] = 1  # half of the arguments have all the positives
    argument, category = sample_pairs(labels, 10.0, 0)
    negative = labels[argument, category] == 0
    share = (argument[negative] >= 100).mean()
    assert abs(share - 2000 / 3900) < 0.05
