"""Conclusions: texts that differ only in case, punctuation, spacing or form are one, and others are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxvalues.data.arguments import IN_FAVOR, SPLITS, Argument
from jaxvalues.data.conclusions import group_by_conclusion, normalize_conclusion
from jaxvalues.data.folder import splits_in
from jaxvalues.data.held_out import cut_folds, hold_out
from jaxvalues.data.loading import load_split


def arguments(*conclusions: str) -> tuple[Argument, ...]:
    return tuple(Argument(f"A{i}", text, IN_FAVOR, "p") for i, text in enumerate(conclusions))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("We should adopt a national language", "We should adopt a National language"),
        ("We need a better policy.", " We need a better policy "),
        ("one  two\tthree", "one two three"),
        ("fast\xa0food", "fast food"),
        ("an end-to-end check", "an end to end check"),
        ("don’t", "don't"),
        ("“Quoted”", '"quoted"'),
        ("Straße", "STRASSE"),
        ("\ufb01ne", "fine"),  # the ligature
        ("\uff26\uff35\uff2c\uff2c width", "full width"),
        ("cafe\u0301", "caf\u00e9"),
        ("immi\u00adgration", "immigration"),  # a soft hyphen
        ("wo\u200brd", "word"),
        ("yes!?", "Yes..."),
    ],
)
def test_these_are_one_conclusion(one: str, other: str) -> None:
    assert normalize_conclusion(one) == normalize_conclusion(other)
    group, sizes = group_by_conclusion(arguments(one, "something else", other))
    assert group[0] == group[2] != group[1]
    assert sorted(sizes) == [1, 2]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("We should ban cars", "We should not ban cars"),
        ("learn C", "learn C++"),
        ("?!", "..."),
        ("", "x"),
        ("a b", "ab"),
    ],
)
def test_these_are_two(one: str, other: str) -> None:
    assert normalize_conclusion(one) != normalize_conclusion(other)


def test_it_is_normalized_once_and_for_all() -> None:
    for text in ("We need a better policy.", "İstanbul", "ΌΣΟΣ", "\u1fb7", "?!", " \u200b ", "Ǆ"):
        assert normalize_conclusion(normalize_conclusion(text)) == normalize_conclusion(text)


def test_numbers_follow_the_texts_and_not_their_order() -> None:
    some = arguments("b", "A", "a.", "B!", "c", "A")
    group, sizes = group_by_conclusion(some)
    assert group.tolist() == [1, 0, 0, 1, 2, 0]
    assert sizes.tolist() == [3, 2, 1]
    order = np.random.default_rng(0).permutation(len(some))
    again, _ = group_by_conclusion([some[i] for i in order])
    assert again.tolist() == group[order].tolist()
    assert [array.tolist() for array in group_by_conclusion([])] == [[], []]


def test_texts_that_are_all_different_are_numbered_as_numpy_sorts_them() -> None:
    """So parts of a split without joined conclusions stay those of earlier versions."""
    training = load_split("training", source="sample")
    texts = [argument.conclusion for argument in training.arguments]
    assert group_by_conclusion(training.arguments)[0].tolist() == np.unique(texts, return_inverse=True)[1].tolist()


def test_published_conclusions(real_data: Path) -> None:
    counts = {}
    for name in splits_in(real_data):
        there = load_split(name, dir=real_data).arguments
        counts[name] = len({argument.conclusion for argument in there}), len(group_by_conclusion(there)[1])
    assert counts == {
        "training": (332, 318),
        "validation": (157, 150),
        "test": (106, 103),
        "validation-zhihu": (12, 12),
        "test-nahjalbalagha": (81, 80),
    }
    assert set(counts) <= set(SPLITS)
    training = load_split("training", dir=real_data)
    group, _ = group_by_conclusion(training.arguments)
    texts: dict[int, set[str]] = {}
    for argument, number in zip(training.arguments, group, strict=True):
        texts.setdefault(number, set()).add(argument.conclusion)
    assert sum(len(texts[number]) > 1 for number in group) == 105


def test_no_published_conclusion_is_on_two_sides(real_data: Path) -> None:
    training = load_split("training", dir=real_data)
    for seed in range(5):
        rest, held = (
            {normalize_conclusion(a.conclusion) for a in part.arguments} for part in hold_out(training, 0.1, seed=seed)
        )
        assert not rest & held
        fold = cut_folds(training, 5, seed=seed)
        pairs = {(normalize_conclusion(a.conclusion), k) for a, k in zip(training.arguments, fold, strict=True)}
        assert len(pairs) == 318
