"""The batches of a benchmark: random or real rows, and branched questions as one question per row."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from jaxvalues.bench.task import APART, PEFTS
from jaxvalues.config import Config
from jaxvalues.data.arguments import Split
from jaxvalues.data.batches import Batch, PlannedBatch, QuestionIndex, Tokens, collate
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.training_batches import TrainingBatches
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.formulations import ChainOfThought, Formulation


def encode(formulation: Formulation, split: Split, peers: Sequence[str]) -> Tokens:
    """Encode a split as a run does. With the peer PEFT, each argument gets one question, in a row of its own.

    Of a chain of thought these are the second turns: the premise stands for what the model would have replied.
    Raises ConfigError if the peer `jaxvalues-apart` is given and the questions do not branch.
    """
    if any(peer in PEFTS for peer in peers):
        formulation = dataclasses.replace(
            formulation, question_rows=dataclasses.replace(formulation.question_rows, branches=False)
        )
        numbers = np.arange(len(split.arguments))  # categories alternate from row to row
        return formulation.encode(split.arguments, split.labels, (numbers, numbers % len(CATEGORIES)))
    if isinstance(formulation, ChainOfThought):
        tokens = formulation.second_turns(split.arguments, [argument.premise for argument in split.arguments])
        tokens = dataclasses.replace(tokens, labels=split.labels)
    else:
        tokens = formulation.encode(split.arguments, split.labels)
    if APART in peers and (tokens.questions is None or tokens.questions.question_ids is None):
        raise ConfigError(
            f"--peer {APART} needs questions that branch from their argument: a question formulation, a causal model, "
            "and a template that names the category last"
        )
    return tokens


def planned_batches(tokens: Tokens, config: Config, work: str, pad_id: int) -> TrainingBatches:
    """The training batches of a config; for inference, batches of `eval_batch_size` rows with all their questions."""
    batches = TrainingBatches.for_config(config, tokens, pad_id)
    if work == "train":
        return batches
    rows = config.training.eval_batch_size
    by_question = rows if batches.rows_per_argument > 1 else None
    return dataclasses.replace(batches, batch_size=rows, questions_per_step=by_question, negatives=None)


def random_batch(batches: TrainingBatches, length: int, ids: range) -> Batch:
    """A batch of random token `ids` without padding, with random labels and the questions of the first rows, if any."""
    tokens, rows, random = batches.tokens, batches.rows, np.random.default_rng(0)
    first = np.arange(rows) % len(tokens)
    column = None
    if batches.by_question:
        column = np.arange(rows) % tokens.questions.categories.shape[1]
    questions = {} if tokens.questions is None else tokens.questions.batch_entries(first, column)
    shape = questions["categories"].shape if questions else (rows, tokens.labels.shape[1])
    return {
        "input_ids": random.integers(ids.start, ids.stop, (rows, length), np.int32),
        "attention_mask": np.ones((rows, length), np.int32),
        "weights": np.ones(shape if questions else rows, np.float32),
        "labels": random.integers(0, 2, shape).astype(np.float32),
    } | questions


def random_rows(rows: int, length: int, ids: range) -> Batch:
    """Rows of random token `ids` without padding, as prompts to generate text from."""
    tokens = np.random.default_rng(0).integers(ids.start, ids.stop, (rows, length), np.int32)
    return {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}


def real_batch(batches: TrainingBatches, length: int) -> Batch:
    """The first batch that is padded to `length`. Raises UserError if there is none."""
    epoch = itertools.islice(batches.starting_at(0), batches.steps_per_epoch)
    batch = next((batch for batch in epoch if batch["input_ids"].shape[1] == length), None)
    if batch is None:
        raise UserError(f"no training batch is padded to {length} tokens, only to {batches.lengths()}")
    return batch


def separate_questions(batch: Batch, pad_id: int) -> Batch:
    """The questions of a branched batch, one per row: [B, T] with K questions [S] each becomes [B * K, T'].

    T' is the length of the longest row.
    """
    rows, asked, _ = batch["question_ids"].shape
    ids = tuple(
        np.concatenate([argument[real != 0], question[there != 0]])
        for argument, real, questions, masks in zip(
            batch["input_ids"], batch["attention_mask"], batch["question_ids"], batch["question_mask"], strict=True
        )
        for question, there in zip(questions, masks, strict=True)
    )
    about = QuestionIndex(np.repeat(np.arange(rows), asked), batch["categories"].reshape(-1, 1))
    tokens = Tokens(ids, batch["labels"].reshape(-1, 1), questions=about)
    together = PlannedBatch(max(map(len, ids)), np.arange(len(ids)))
    answers = {
        name: batch[name].reshape(-1, 1, *batch[name].shape[2:])
        for name in ("answer_ids", "answer_mask")
        if name in batch
    }
    weights = batch["weights"].reshape(-1, 1)
    return collate(tokens, together, len(ids), pad_id) | answers | {"weights": weights}


def positions(batch: Batch, config: Config) -> dict[str, int]:
    """The number of positions that a network reads: `computed` with padding, `real` without.

    Counts prompts, rows and questions. Answer tokens after the first are not counted: both layouts read the same ones.
    """
    masks = [batch[name] for name in ("attention_mask", "question_mask") if name in batch]
    prompts = config.tuning.length if config.tuning.method in ("prompt", "p_tuning") else 0
    prompts *= len(batch["attention_mask"])
    return {
        "computed": prompts + sum(mask.size for mask in masks),
        "real": prompts + sum(int(mask.sum()) for mask in masks),
    }
