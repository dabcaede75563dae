"""What an update is on: the same arguments and questions on every network, drawn anew in every epoch."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from jaxvalues.data.batches import PlannedBatch, QuestionIndex, Tokens, collate, epoch_plan, inputs_shape
from jaxvalues.data.subset import count_pairs
from jaxvalues.data.training_batches import EpochSize, TrainingBatches

N, C = 43, 20
LABELS = (np.random.default_rng(0).random((N, C)) < 0.15).astype(np.int8)
CATEGORIES = np.arange(C)
WAYS: dict[str, dict[str, Any]] = {
    "all questions": {},
    "negatives": {"negatives": 1.5},
    "by question": {"questions_per_step": 8},
    "negatives by question": {"negatives": 1.5, "questions_per_step": 8},
}


def tokens(layout: str, lengths: np.ndarray | None = None) -> Tokens:
    """Argument i is full of id 100 + i, and its question about category c follows as id c, or branches from it."""
    lengths = np.full(N, 5) if lengths is None else lengths
    arguments = [np.full(length, 100 + i, np.int32) for i, length in enumerate(lengths)]
    if layout == "classify":
        return Tokens(tuple(arguments), LABELS)
    if layout == "branches":
        index = QuestionIndex(np.arange(N), np.broadcast_to(CATEGORIES, (N, C)), CATEGORIES[:, None])
        return Tokens(tuple(arguments), LABELS, questions=index)
    rows = tuple(np.concatenate([row, np.full(1 + c % 3, c, np.int32)]) for row in arguments for c in CATEGORIES)
    index = QuestionIndex(np.repeat(np.arange(N), C), np.tile(CATEGORIES, N)[:, None])
    return Tokens(rows, LABELS.reshape(-1, 1), questions=index)


def batches(layout: str, lengths: np.ndarray | None = None, **options: Any) -> TrainingBatches:
    buckets = (8,) if lengths is None else (8, 12, 16, 20)
    return TrainingBatches(tokens(layout, lengths), buckets, batch_size=4, seed=3, pad_id=1, **options)


def epochs_of(stream: TrainingBatches, count: int) -> list[list[dict[str, np.ndarray]]]:
    each = stream.steps_per_epoch
    every = list(islice(stream.starting_at(0), count * each))
    return [every[start : start + each] for start in range(0, len(every), each)]


def asked(batch: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """The (argument, category) of every question that counts, sorted. Labels are those of the questions."""
    rows, columns = np.nonzero(batch["weights"])
    pairs = list(zip(batch["input_ids"][rows, 0] - 100, batch["categories"][rows, columns], strict=True))
    assert batch["labels"][rows, columns].tolist() == [LABELS[pair] for pair in pairs]
    return sorted((int(a), int(c)) for a, c in pairs)


def test_an_epoch_has_as_many_updates_on_every_network() -> None:
    for layout in ("classify", "branches", "rows"):
        assert batches(layout).steps_per_epoch == 11  # 43 arguments, 4 at a time
    for layout in ("branches", "rows"):
        assert batches(layout, negatives=1.5).steps_per_epoch == 11
        assert batches(layout, questions_per_step=8).steps_per_epoch == 108  # 860 questions
        drawn = count_pairs(LABELS, 1.5)
        assert batches(layout, negatives=1.5, questions_per_step=8).steps_per_epoch == -(-drawn // 8)


@pytest.mark.parametrize("way", WAYS)
def test_updates_are_on_the_same_questions_whether_they_branch_or_not(way: str) -> None:
    branches, rows = (batches(layout, epochs=3, **WAYS[way]) for layout in ("branches", "rows"))
    for ours, theirs in zip(epochs_of(branches, 3), epochs_of(rows, 3), strict=True):
        said = [[asked(batch) for batch in epoch] for epoch in (ours, theirs)]
        assert said[0] == said[1]
        pairs = [pair for batch in said[0] for pair in batch]
        assert len(set(pairs)) == len(pairs) == branches.size.questions
        assert set(zip(*map(np.ndarray.tolist, np.nonzero(LABELS)), strict=True)) <= set(pairs)
        if way == "all questions":
            assert len(pairs) == N * C
            assert all(len({argument for argument, _ in batch}) in (3, 4) for batch in said[0])


def test_an_update_by_argument_holds_all_that_is_asked_about_it() -> None:
    for layout in ("branches", "rows"):
        for epoch in epochs_of(batches(layout, negatives=1.5, epochs=2), 2):
            together = [{argument for argument, _ in asked(batch)} for batch in epoch]
            assert sum(map(len, together)) == len(set().union(*together))  # no argument in two updates
            assert max(map(len, together)) <= 4


def test_negatives_are_drawn_anew_in_every_epoch_by_seed_and_epoch_alone() -> None:
    stream = batches("rows", negatives=1.5, questions_per_step=8, epochs=4)
    drawn = [frozenset(pair for batch in epoch for pair in asked(batch)) for epoch in epochs_of(stream, 4)]
    assert len(set(drawn)) == 4
    assert {len(one) for one in drawn} == {count_pairs(LABELS, 1.5)}
    assert drawn == [frozenset(p for b in epoch for p in asked(b)) for epoch in epochs_of(replace(stream), 4)]
    assert drawn[0] != frozenset(p for b in epochs_of(replace(stream, seed=4), 1)[0] for p in asked(b))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", ["branches", "rows"])
def test_no_epoch_has_a_shape_that_the_first_has_not(layout: str, way: str) -> None:
    for seed in range(12):
        lengths = np.random.default_rng(seed).choice([3, 9, 13, 17], N, p=[0.8, 0.12, 0.05, 0.03])
        stream = batches(layout, lengths, epochs=6, **WAYS[way])
        shapes = [{inputs_shape(batch) for batch in epoch} for epoch in epochs_of(stream, 6)]
        assert all(one <= shapes[0] for one in shapes)
        assert sorted({shape[1] for shape in shapes[0]}) == stream.lengths()
        assert {shape[0] for shape in shapes[0]} == {stream.rows}


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_stream_goes_on_as_the_whole_one(way: str) -> None:
    stream = batches("rows", np.random.default_rng(5).choice([3, 9, 13], N), epochs=3, **WAYS[way])
    each = stream.steps_per_epoch
    whole = list(islice(stream.starting_at(0), 2 * each + 3))
    for step in (1, each, 2 * each + 1):
        for expected, got in zip(whole[step:], replace(stream).starting_at(step), strict=False):
            assert expected.keys() == got.keys()
            assert all((expected[name] == got[name]).all() for name in expected)


def test_steps_of_questions_are_batches_of_rows() -> None:
    """As the study trains, and as all rows were batched before batches counted arguments."""
    stream = batches("rows", np.random.default_rng(5).choice([3, 9, 13], N), questions_per_step=8)
    rows = stream.tokens
    for epoch, ours in enumerate(epochs_of(stream, 2)):
        plan = epoch_plan(rows.lengths, stream.buckets, 8, seed=3, epoch=epoch)
        for planned, batch in zip(plan, ours, strict=True):
            expected = collate(rows, planned, 8, 1)
            assert all((batch[name] == expected[name]).all() for name in expected)


def test_rows_are_few_where_few_questions_are_drawn_and_micro_batches_divide_them() -> None:
    whole, some = batches("rows"), batches("rows", negatives=0.5, epochs=5)
    assert whole.rows == 4 * C
    most = max(len(asked(batch)) for epoch in epochs_of(some, 5) for batch in epoch)
    assert most <= some.rows < most + 4
    assert batches("rows", negatives=0.5, epochs=5, accumulation=5).rows % 20 == 0
    assert Counter(len(batch["weights"]) for batch in epochs_of(some, 5)[4]) == {some.rows: 11}


def test_padding_and_questions_that_are_not_asked_weigh_nothing() -> None:
    one = tokens("branches")
    batch = collate(one, PlannedBatch(8, np.array([2, 0]), asked=np.eye(2, C, dtype=bool)), 3, 1)
    assert batch["weights"].tolist() == [*np.eye(2, C).tolist(), [0.0] * C]
    batch = collate(one, PlannedBatch(8, np.array([2, 0]), np.array([7, 3])), 3, 1)
    assert batch["categories"].tolist() == [[7], [3], [0]]
    assert batch["labels"].tolist() == [[LABELS[2, 7]], [LABELS[0, 3]], [0]]
    assert batch["weights"].tolist() == [[1], [1], [0]]
    assert batch["question_ids"].tolist() == [[[7]], [[3]], [[0]]]


def test_an_update_in_words() -> None:
    for size, said in (
        (EpochSize.of(230, None, 16), "16 arguments"),
        (EpochSize.of(230, None, 1), "1 argument"),
        (EpochSize.of(230, 4600, 8), "8 arguments with 160 questions"),
        (EpochSize.of(100, 333, 8), "8 arguments with 26.6 questions on average"),
        (EpochSize.of(100, 2000, 8, 8), "8 questions, as many as 0.4 arguments have on average"),
    ):
        assert str(size) == said
