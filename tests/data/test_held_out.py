"""Holding out: disjoint parts, whole conclusions, the same every time, near the fraction asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxvalues.data.arguments import IN_FAVOR, Argument, Split, load_split
from jaxvalues.data.held_out import hold_out
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


@pytest.mark.parametrize("by", ["conclusion", "argument"])
def test_the_seed_alone_decides_which(by: str) -> None:
    parts = [hold_out(SPLIT, 0.3, by, seed)[1].ids for seed in (0, 0, 1, 2, 3)]
    assert parts[0] == parts[1]
    assert len(set(parts)) == 4


@pytest.mark.parametrize("by", ["conclusion", "argument"])
def test_an_empty_part_is_an_error(by: str) -> None:
    with pytest.raises(ConfigError, match="leaves one part empty"):
        hold_out(split_of([2, 2]), 0.01, by)


def test_on_the_real_training_split(real_data: Path) -> None:
    training = load_split("training", dir=real_data)
    rest, held = hold_out(training, 0.1)
    assert not {a.conclusion for a in rest.arguments} & {a.conclusion for a in held.arguments}
    assert len(rest) + len(held) == len(training) == 5393
    assert abs(len(held) - 539.3) < 30
