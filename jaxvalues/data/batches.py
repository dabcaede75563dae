"""From tokenised arguments to batches of few, fixed shapes, in an order that is a pure function of (seed, epoch).

Rows are grouped into length buckets so that little is spent on padding. What does not fill a batch of its bucket moves
up to the next longer one, so an epoch has exactly ceil(n / B) batches, only the last of them is padded (with rows of
weight 0), and the set of shapes is the same in every epoch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Asked:
    """What rows ask that are questions about arguments: row r asks about one of them, for K categories.

    `questions` [C, S] are tokens that follow a row's own, another branch of it for each category (None: they stand in
    the row already); `answers` [C, A, R] the words whose probability is asked for (None: the same for all categories,
    which the formulation knows). Both are padded on the right with -1.
    """

    argument: np.ndarray  # [rows]
    categories: np.ndarray  # [rows, K]
    questions: np.ndarray | None = None
    answers: np.ndarray | None = None

    def inputs(self, rows: np.ndarray) -> Batch:
        """What these rows add to a batch: `categories` [B, K], `question_ids` [B, K, S] and `answer_ids` [B, K, A, R],
        each with its mask."""
        categories = self.categories[rows].astype(np.int32)
        added = {"categories": categories}
        for name, table in (("question", self.questions), ("answer", self.answers)):
            if table is not None:
                ids = table[categories]
                added |= {f"{name}_ids": np.maximum(ids, 0), f"{name}_mask": (ids >= 0).astype(np.int32)}
        return added

    def fold(self, logits: np.ndarray, arguments: int) -> np.ndarray:
        """Logits [rows, K] as [n, C]: each where its argument and category meet."""
        folded = np.zeros((arguments, self.categories.max() + 1), logits.dtype)
        folded[self.argument[:, None], self.categories] = logits
        return folded


@dataclass(frozen=True)
class Tokens:
    """A tokenised split: one id array a row, and what its labels are, if known.

    A row is an argument, in the order of the split, unless `asked` says what it asks about which one.
    """

    ids: tuple[np.ndarray, ...]
    labels: np.ndarray | None  # [rows, C or K] 0/1
    truncated: int = 0  # arguments that were cut to the longest length
    hidden: tuple[np.ndarray, ...] | None = None  # [len, D] a row: features to start from instead of the ids
    asked: Asked | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def arguments(self) -> int:
        """How many arguments the rows are about."""
        return len(self) if self.asked is None else int(self.asked.argument.max(initial=-1)) + 1

    def fold(self, logits: np.ndarray) -> np.ndarray:
        """Logits of the rows [rows, C or K] as logits of the arguments [n, C]."""
        return logits if self.asked is None else self.asked.fold(logits, self.arguments)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(row) for row in self.ids], np.int32)


@dataclass(frozen=True)
class Slice:
    """One batch to come: which rows, padded to which length."""

    length: int
    rows: np.ndarray


def plan(order: np.ndarray, lengths: np.ndarray, buckets: Sequence[int], batch_size: int) -> list[Slice]:
    """Cut rows, taken in `order`, into batches of one bucket each; leftovers move up to the next bucket.

    `lengths` [n] are row lengths in tokens, none above the last bucket. Returns ceil(len(order) / batch_size) slices.
    """
    slices, waiting = [], np.empty(0, order.dtype)
    bucket_of = np.searchsorted(np.asarray(buckets), lengths[order])
    for number, length in enumerate(buckets):
        pool = np.concatenate([waiting, order[bucket_of == number]])
        last = not (bucket_of > number).any()
        cut = len(pool) if last else len(pool) - len(pool) % batch_size
        slices += [Slice(length, pool[start : start + batch_size]) for start in range(0, cut, batch_size)]
        if last:
            break
        waiting = pool[cut:]
    return slices


def epoch_plan(lengths: np.ndarray, buckets: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[Slice]:
    """The batches of one training epoch: rows shuffled, bucketed, and the batches shuffled again."""
    random = np.random.default_rng((seed, epoch))
    slices = plan(random.permutation(len(lengths)), lengths, buckets, batch_size)
    return [slices[i] for i in random.permutation(len(slices))]


def evaluation_plan(lengths: np.ndarray, buckets: Sequence[int], batch_size: int) -> list[Slice]:
    """The batches of an evaluation: every row once, in file order within its bucket."""
    return plan(np.arange(len(lengths)), lengths, buckets, batch_size)


def model_inputs(batch: Batch) -> Batch:
    """The part of a batch that a network is applied to."""
    return {name: array for name, array in batch.items() if name not in ("weights", "labels")}


def inputs_shape(batch: Batch) -> tuple[int, ...]:
    """What the shape of a compiled step is named by: [B, T], or [B, T, D] with features; followed by [K, S] and
    [K, A, R] where questions and answers branch from the rows."""
    shape = batch["hidden" if "hidden" in batch else "input_ids"].shape
    branches = (batch[name].shape[1:] for name in ("question_ids", "answer_ids") if name in batch)
    return tuple(itertools.chain(shape, *branches))


def collate(tokens: Tokens, piece: Slice, batch_size: int, pad_id: int) -> Batch:
    """Make one batch: input_ids and attention_mask [B, T] int32, labels [B, C] float32 (if known), weights [B] float32.

    Where there are features, `hidden` [B, T, D] takes the place of input_ids. Rows beyond `piece.rows` are padding:
    weight 0, one real token so that attention has something to look at.
    """
    count = len(piece.rows)
    attention_mask = np.zeros((batch_size, piece.length), np.int32)
    attention_mask[count:, 0] = 1
    if tokens.hidden is None:
        name, rows = "input_ids", tokens.ids
        inputs = np.full((batch_size, piece.length), pad_id, np.int32)
    else:
        name, rows = "hidden", tokens.hidden
        inputs = np.zeros((batch_size, piece.length, rows[0].shape[1]), rows[0].dtype)
    for row, index in enumerate(piece.rows):
        values = rows[index]
        inputs[row, : len(values)] = values
        attention_mask[row, : len(values)] = 1
    batch = {
        name: inputs,
        "attention_mask": attention_mask,
        "weights": (np.arange(batch_size) < count).astype(np.float32),
    }
    if tokens.asked is not None:  # padding rows ask what row 0 asks
        batch |= tokens.asked.inputs(np.concatenate([piece.rows, np.zeros(batch_size - count, piece.rows.dtype)]))
    if tokens.labels is not None:
        batch["labels"] = np.zeros((batch_size, tokens.labels.shape[1]), np.float32)
        batch["labels"][:count] = tokens.labels[piece.rows]
    return batch


@dataclass(frozen=True)
class TrainingBatches:
    """The endless stream of training batches; batch number `step` depends on nothing but (seed, step)."""

    tokens: Tokens
    buckets: tuple[int, ...]
    batch_size: int
    seed: int
    pad_id: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.tokens) // self.batch_size)

    def lengths(self) -> list[int]:
        """The bucket lengths that occur, the same in every epoch."""
        return sorted({piece.length for piece in self._epoch(0)})

    def starting_at(self, step: int) -> Iterator[Batch]:
        """Batches from `step` on, as if all before had been drawn."""
        epoch, within = divmod(step, self.steps_per_epoch)
        while True:
            for piece in self._epoch(epoch)[within:]:
                yield collate(self.tokens, piece, self.batch_size, self.pad_id)
            epoch, within = epoch + 1, 0

    def _epoch(self, epoch: int) -> list[Slice]:
        return epoch_plan(self.tokens.lengths, self.buckets, self.batch_size, self.seed, epoch)
