"""Tokenised arguments, and how their rows become batches. The order of rows is a pure function of (seed, epoch).

Rows are grouped into length buckets, which limits padding and the number of compiled shapes. Rows that do not fill a
batch of their bucket move to the next longer bucket. So an epoch has exactly ceil(n / B) batches, only one of them is
padded (with rows of weight 0), and the set of shapes is the same in every epoch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

Batch = dict[str, np.ndarray]

LENGTHS = 2  # follows (0, epoch) where the order of lengths is drawn; `training_batches` has a 1 there


@dataclass(frozen=True)
class QuestionIndex:
    """Which questions the rows of a question formulation contain: one argument and K categories for each row.

    `question_ids` [C, S] are the tokens of the question for each category. They branch from the row's own tokens. None:
    every row already contains its question. `answer_ids` [C, A, R] are the tokens of A answers for each category. None:
    all categories have the same answers, which the formulation holds. Both tables are padded on the right with -1.
    """

    argument: np.ndarray  # [rows], an index into the arguments
    categories: np.ndarray  # [rows, K], columns of the labels
    question_ids: np.ndarray | None = None
    answer_ids: np.ndarray | None = None

    def batch_entries(self, rows: np.ndarray, column: np.ndarray | None = None) -> Batch:
        """The arrays that these rows add to a batch. `column` [B] selects one question of each row; None: all K.

        They are `categories` [B, K] and, where there is a table, `question_ids` [B, K, S] and `answer_ids`
        [B, K, A, R], each with a mask of the same shape.
        """
        categories = _selected(self.categories[rows], column).astype(np.int32)
        entries = {"categories": categories}
        for name, table in (("question", self.question_ids), ("answer", self.answer_ids)):
            if table is not None:
                ids = table[categories]
                entries |= {f"{name}_ids": np.maximum(ids, 0), f"{name}_mask": (ids >= 0).astype(np.int32)}
        return entries

    def to_arguments(self, logits: np.ndarray, num_arguments: int) -> np.ndarray:
        """Logits of the rows [..., rows, K], placed by argument and category: [..., num_arguments, C]."""
        by_argument = np.zeros((*logits.shape[:-2], num_arguments, self.categories.max() + 1), logits.dtype)
        by_argument[..., self.argument[:, None], self.categories] = logits
        return by_argument


@dataclass(frozen=True)
class Tokens:
    """A tokenised split: one array of ids for each row, and the labels where they are known.

    Without `questions`, row i is argument i of the split. With them, `questions` says which argument and categories
    each row is about.
    """

    ids: tuple[np.ndarray, ...]
    labels: np.ndarray | None  # [rows, C or K] 0/1
    truncated: int = 0  # the number of arguments that were truncated to the maximum length
    hidden: tuple[np.ndarray, ...] | None = None  # [len, D] a row: features that replace the ids as input
    questions: QuestionIndex | None = None
    fewer_examples: int = 0  # the number of arguments whose prompts have fewer examples than others
    examples_left_out: int = 0  # the number of examples that all rows together are short of
    beginning: np.ndarray | None = None  # [P] ids that stand before every row, and are read once for all of them

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_arguments(self) -> int:
        """The number of arguments n that the rows are about."""
        return len(self) if self.questions is None else int(self.questions.argument.max(initial=-1)) + 1

    def to_arguments(self, logits: np.ndarray) -> np.ndarray:
        """Converts logits of the rows [..., rows, C or K] to logits of the arguments [..., n, C]."""
        return logits if self.questions is None else self.questions.to_arguments(logits, self.num_arguments)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(row) for row in self.ids], np.int32)


@dataclass(frozen=True)
class PlannedBatch:
    """One batch before collation: the length to which its rows are padded, their indices, and their questions.

    `column` [rows] selects one question of each row; None: all K. `asked` [rows, K] says which questions count in the
    loss; None: all of them.
    """

    length: int
    rows: np.ndarray
    column: np.ndarray | None = None
    asked: np.ndarray | None = None


def plan_batches(order: np.ndarray, lengths: np.ndarray, buckets: Sequence[int], batch_size: int) -> list[PlannedBatch]:
    """Divides rows, taken in `order`, into batches of one bucket each. Leftovers move to the next longer bucket.

    `lengths` [n] are row lengths in tokens, none above the last bucket. Returns ceil(len(order) / batch_size) batches.
    """
    batches, waiting = [], np.empty(0, order.dtype)
    bucket_of = np.searchsorted(np.asarray(buckets), lengths[order])
    for number, length in enumerate(buckets):
        pool = np.concatenate([waiting, order[bucket_of == number]])
        last = not (bucket_of > number).any()
        end = len(pool) if last else len(pool) - len(pool) % batch_size
        batches += [PlannedBatch(length, pool[start : start + batch_size]) for start in range(0, end, batch_size)]
        if last:
            break
        waiting = pool[end:]
    return batches


def epoch_plan(
    lengths: np.ndarray, buckets: Sequence[int], batch_size: int, *, seed: int, epoch: int, longest: int | None = None
) -> list[PlannedBatch]:
    """The batches of one training epoch: the rows are shuffled and bucketed, then the batches are shuffled.

    The order of lengths is a function of the epoch alone, so that runs of several seeds meet the same shapes at the
    same steps and can train together. With `longest`, one of `buckets`, the batch of the longest rows has that length,
    whichever rows are there.
    """
    random = np.random.default_rng((seed, epoch))
    batches = plan_batches(random.permutation(len(lengths)), lengths, buckets, batch_size)
    if longest is not None and batches:
        batches[-1] = replace(batches[-1], length=longest)
    waiting: dict[int, list[PlannedBatch]] = {}
    for i in random.permutation(len(batches)):
        waiting.setdefault(batches[i].length, []).append(batches[i])
    order = np.random.default_rng((0, epoch, LENGTHS)).permutation(len(batches))
    return [waiting[batches[i].length].pop(0) for i in order]


def evaluation_plan(lengths: np.ndarray, buckets: Sequence[int], batch_size: int) -> list[PlannedBatch]:
    """The batches of an evaluation: every row once, in file order within each bucket."""
    return plan_batches(np.arange(len(lengths)), lengths, buckets, batch_size)


def model_inputs(batch: Batch) -> Batch:
    """The entries of a batch that the network takes: all but the labels and the weights."""
    return {name: array for name, array in batch.items() if name not in ("weights", "labels")}


def inputs_shape(batch: Batch) -> tuple[int, ...]:
    """The shape that identifies a compiled step.

    It is [B, T], or [B, T, D] with features, followed by [K, S] of the questions and [K, A, R] of the answers that
    branch from the rows, where there are any. Batches of several runs have a leading axis [R].
    """
    shape = batch["hidden" if "hidden" in batch else "input_ids"].shape
    branches = (batch[name].shape[1:] for name in ("question_ids", "answer_ids") if name in batch)
    return tuple(itertools.chain(shape, *branches))


def collate(tokens: Tokens, planned: PlannedBatch, batch_size: int, pad_id: int) -> Batch:
    """Makes one batch: input_ids and attention_mask [B, T] int32, weights [B] float32, labels [B, C] float32 if known.

    Rows with questions have weights [B, K] and labels [B, K], one for each question. With features, `hidden` [B, T, D]
    replaces input_ids. Rows beyond `planned.rows` are padding: they have weight 0 and one unmasked token, so that the
    softmax of attention is defined.
    """
    count = len(planned.rows)
    attention_mask = np.zeros((batch_size, planned.length), np.int32)
    attention_mask[count:, 0] = 1
    if tokens.hidden is None:
        name, rows = "input_ids", tokens.ids
        inputs = np.full((batch_size, planned.length), pad_id, np.int32)
    else:
        name, rows = "hidden", tokens.hidden
        inputs = np.zeros((batch_size, planned.length, rows[0].shape[1]), rows[0].dtype)
    for row, index in enumerate(planned.rows):
        values = rows[index]
        inputs[row, : len(values)] = values
        attention_mask[row, : len(values)] = 1
    batch = {
        name: inputs,
        "attention_mask": attention_mask,
        "weights": (np.arange(batch_size) < count).astype(np.float32),
    }
    if tokens.questions is not None:  # padding rows repeat the questions of row 0
        padding = np.zeros(batch_size - count, planned.rows.dtype)
        column = None if planned.column is None else np.concatenate([planned.column, padding])
        batch |= tokens.questions.batch_entries(np.concatenate([planned.rows, padding]), column)
        batch["weights"] = np.repeat(batch["weights"][:, None], batch["categories"].shape[1], axis=1)
        if planned.asked is not None:
            batch["weights"][:count] *= planned.asked
    if tokens.labels is not None:
        labels = _selected(tokens.labels[planned.rows], planned.column)
        batch["labels"] = np.zeros((batch_size, labels.shape[1]), np.float32)
        batch["labels"][:count] = labels
    return batch


def _selected(table: np.ndarray, column: np.ndarray | None) -> np.ndarray:
    """One column of each row of `table` [R, K], as [R, 1]; the whole table where `column` [R] is None."""
    return table if column is None else np.take_along_axis(table, column[:, None], axis=1)
