"""Batches: every row once, few fixed shapes, and an order that is a pure function of (seed, epoch)."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from jaxvalues.data.batches import (
    PlannedBatch,
    Tokens,
    collate,
    epoch_plan,
    evaluation_plan,
    plan_batches,
)
from jaxvalues.data.training_batches import TrainingBatches

BUCKETS = (8, 16, 32)


def lengths_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, BUCKETS[-1] + 1, n).astype(np.int32)


def tokens_of(n: int) -> Tokens:
    """Row i is full of id 100 + i and has label i % 2 in every category."""
    ids = tuple(np.full(length, 100 + i, np.int32) for i, length in enumerate(lengths_of(n)))
    return Tokens(ids, np.repeat(np.arange(n)[:, None] % 2, 20, axis=1).astype(np.int8))


@pytest.mark.parametrize("n", [1, 7, 8, 9, 64, 203])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_plan_has_each_row_once_in_as_few_batches_as_there_can_be(n: int, batch_size: int) -> None:
    lengths = lengths_of(n)
    slices = plan_batches(np.random.default_rng(1).permutation(n), lengths, BUCKETS, batch_size)
    assert len(slices) == -(-n // batch_size)
    assert sorted(np.concatenate([planned.rows for planned in slices])) == list(range(n))
    assert all(len(planned.rows) == batch_size for planned in slices[:-1])  # only the last is padded
    for planned in slices:
        assert planned.length in BUCKETS
        assert lengths[planned.rows].max() <= planned.length


def test_leftovers_move_up_to_the_next_bucket() -> None:
    lengths = np.array([3, 20, 4, 12, 5, 13, 6, 30])  # buckets 8: rows 0 2 4 6; 16: 3 5; 32: 1 7
    slices = plan_batches(np.arange(8), lengths, BUCKETS, 3)
    assert [(planned.length, planned.rows.tolist()) for planned in slices] == [
        (8, [0, 2, 4]),
        (16, [6, 3, 5]),
        (32, [1, 7]),
    ]


def test_a_row_goes_to_the_shortest_bucket_that_holds_it_and_unused_buckets_stay_away() -> None:
    assert plan_batches(np.arange(1), np.array([8]), BUCKETS, 1)[0].length == 8
    assert plan_batches(np.arange(1), np.array([9]), BUCKETS, 1)[0].length == 16
    assert [planned.length for planned in plan_batches(np.arange(5), np.array([3] * 5), BUCKETS, 2)] == [8, 8, 8]


@pytest.mark.parametrize("n", [5, 50, 203])
def test_every_epoch_has_the_same_shapes(n: int) -> None:
    epochs = [epoch_plan(lengths_of(n), BUCKETS, 8, seed=0, epoch=epoch) for epoch in range(5)]
    shapes = [Counter((planned.length, len(planned.rows)) for planned in slices) for slices in epochs]
    assert shapes.count(shapes[0]) == len(shapes)


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        np.random.rand()  # a global generator must not matter
        return [planned.rows.tolist() for planned in epoch_plan(lengths_of(100), BUCKETS, 8, seed=seed, epoch=epoch)]

    assert order(0, 3) == order(0, 3)
    assert len({str(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_an_evaluation_takes_rows_in_file_order_within_their_bucket() -> None:
    assert [planned.rows.tolist() for planned in evaluation_plan(np.array([3, 30, 4, 31, 5, 6]), BUCKETS, 2)] == [
        [0, 2], [4, 5], [1, 3],
    ]  # fmt: skip


def test_a_batch_holds_its_rows_and_padding_weighs_nothing() -> None:
    tokens = tokens_of(4)
    lengths = tokens.lengths
    batch = collate(tokens, PlannedBatch(32, np.array([3, 1])), batch_size=4, pad_id=1)
    assert {name: (x.shape, x.dtype.name) for name, x in batch.items()} == {
        "input_ids": ((4, 32), "int32"),
        "attention_mask": ((4, 32), "int32"),
        "labels": ((4, 20), "float32"),
        "weights": ((4,), "float32"),
    }
    for row, index in enumerate((3, 1)):
        assert batch["input_ids"][row].tolist() == [100 + index] * lengths[index] + [1] * (32 - lengths[index])
        assert batch["attention_mask"][row].tolist() == [1] * lengths[index] + [0] * (32 - lengths[index])
    assert (batch["input_ids"][2:] == 1).all()
    assert batch["attention_mask"][2:].sum(axis=1).tolist() == [1, 1]  # something to look at, or softmax is NaN
    assert batch["weights"].tolist() == [1, 1, 0, 0]
    assert batch["labels"][:, 0].tolist() == [1, 1, 0, 0]
    assert "labels" not in collate(Tokens(tokens.ids, None), PlannedBatch(32, np.array([0])), 4, 1)


@pytest.mark.parametrize("step", [0, 1, 6, 7, 8, 20, 21])
def test_starting_at_a_step_goes_on_as_the_whole_stream_does(step: int) -> None:
    batches = TrainingBatches(tokens_of(50), BUCKETS, 8, seed=3, pad_id=1)  # 7 steps an epoch
    assert batches.steps_per_epoch == 7
    whole = list(islice(batches.starting_at(0), step + 9))[step:]
    for expected, got in zip(whole, batches.starting_at(step), strict=False):
        assert expected.keys() == got.keys()
        assert all((expected[name] == got[name]).all() for name in expected)


def test_the_stream_says_which_lengths_it_will_have() -> None:
    batches = TrainingBatches(tokens_of(50), BUCKETS, 8, seed=3, pad_id=1)
    assert {batch["input_ids"].shape[1] for batch in islice(batches.starting_at(0), 21)} == set(batches.lengths())
