"""The batches that contenders are given: random or real rows, and the questions of a branched batch one a row."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from jaxvalues.bench.task import APART, PEFT
from jaxvalues.config import Config
from jaxvalues.data.arguments import Split
from jaxvalues.data.batches import Asked, Batch, Slice, Tokens, TrainingBatches, collate
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.formulations import Formulation


def encode(formulation: Formulation, split: Split, peers: Sequence[str]) -> Tokens:
    """The rows of a split as a run has them; beside PEFT, one question about each argument, which asks by itself.

    Raises ConfigError where questions are to be compared with their branches and have none.
    """
    if PEFT in peers:
        formulation = dataclasses.replace(
            formulation, question_rows=dataclasses.replace(formulation.question_rows, branches=False)
        )
        numbers = np.arange(len(split.arguments))  # the categories take turns
        return formulation.encode(split.arguments, split.labels, (numbers, numbers % len(CATEGORIES)))
    tokens = formulation.encode(split.arguments, split.labels)
    if APART in peers and (tokens.asked is None or tokens.asked.questions is None):
        raise ConfigError(
            f"--peer {APART} asks questions apart that branch from one argument: that takes a formulation that asks, a "
            "causal model, and a template that names the category last"
        )
    return tokens


def random_batch(tokens: Tokens, rows: int, length: int, ids: range) -> Batch:
    """Rows of random `ids` without padding, and random labels; what they ask, if they do, is what `tokens` ask."""
    random = np.random.default_rng(0)
    batch = {
        "input_ids": random.integers(ids.start, ids.stop, (rows, length), np.int32),
        "attention_mask": np.ones((rows, length), np.int32),
        "weights": np.ones(rows, np.float32),
        "labels": random.integers(0, 2, (rows, tokens.labels.shape[1])).astype(np.float32),
    }
    asked = {} if tokens.asked is None else tokens.asked.inputs(np.arange(rows) % len(tokens))
    return batch | asked


def real_batch(tokens: Tokens, config: Config, rows: int, length: int, pad_id: int) -> Batch:
    """The first batch of so many rows that is padded to `length`, as a run meets it. Raises UserError without one."""
    batches = TrainingBatches(tokens, config.lengths, rows, config.seed, pad_id)
    epoch = itertools.islice(batches.starting_at(0), batches.steps_per_epoch)
    batch = next((batch for batch in epoch if batch["input_ids"].shape[1] == length), None)
    if batch is None:
        raise UserError(f"no training batch is padded to {length} tokens, only to {batches.lengths()}")
    return batch


def apart(batch: Batch, pad_id: int) -> Batch:
    """The same questions without branches: [B, T] with K questions [S] each as [B * K, T'], one question a row.

    T' is the longest of these rows, so they are padded as little as one shape allows.
    """
    rows, asked, _ = batch["question_ids"].shape
    ids = tuple(
        np.concatenate([argument[real != 0], question[there != 0]])
        for argument, real, questions, masks in zip(
            batch["input_ids"], batch["attention_mask"], batch["question_ids"], batch["question_mask"], strict=True
        )
        for question, there in zip(questions, masks, strict=True)
    )
    about = Asked(np.repeat(np.arange(rows), asked), batch["categories"].reshape(-1, 1))
    tokens = Tokens(ids, batch["labels"].reshape(-1, 1), asked=about)
    together = Slice(max(map(len, ids)), np.arange(len(ids)))
    answers = {
        name: batch[name].reshape(-1, 1, *batch[name].shape[2:])
        for name in ("answer_ids", "answer_mask")
        if name in batch
    }
    weights = np.repeat(batch["weights"], asked)
    return collate(tokens, together, len(ids), pad_id) | answers | {"weights": weights}


def positions(batch: Batch, config: Config) -> dict[str, int]:
    """How many positions a network reads: prompts, rows and questions, with padding (`computed`) and without (`real`).

    The further tokens of long answers are not counted, as both layouts read the same of them.
    """
    masks = [batch[name] for name in ("attention_mask", "question_mask") if name in batch]
    prompts = config.tuning.length if config.tuning.method in ("prompt", "p_tuning") else 0
    prompts *= len(batch["attention_mask"])
    return {
        "computed": prompts + sum(mask.size for mask in masks),
        "real": prompts + sum(int(mask.sum()) for mask in masks),
    }
