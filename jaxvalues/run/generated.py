"""Texts that a language model generates about arguments: lists of categories, and the first turns of chains."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvalues.data.batches import Tokens
from jaxvalues.errors import ConfigError
from jaxvalues.generation import Asked, Generated, LanguageModel
from jaxvalues.generation.stopping import sequence_ends
from jaxvalues.run.held import hold_all
from jaxvalues.run.journal import journal
from jaxvalues.run.system import System, Weights
from jaxvalues.run.watch import ALONE, Watch
from jaxvalues.templates.chat import answer_of

Text = dict[str, Any]
"""A generated text as it is kept: `argument`, `sample`, `text`, `finish_reason`, `status`."""


class Chains(NamedTuple):
    """The first turns of chains of thought: `replies` of each sample to all arguments, the record and the texts."""

    replies: list[list[str]]
    record: dict[str, Any]
    generated: list[Text]


def listed_logits(
    system: System, weights: Weights, tokens: Tokens, watch: Watch = ALONE
) -> tuple[np.ndarray, dict[str, Any], list[Text]]:
    """The logits [n, C] of generated lists, the mean over samples; what was found, counted; and the texts."""
    results = _generate(system, weights, tokens, watch)
    parsed = [system.formulation.parse(one.text, one.finish_reason) for one in results]
    votes = np.stack([system.formulation.vote(one) for one in parsed]) if parsed else np.zeros((0, 1), np.float32)
    logits = votes.reshape(len(tokens), -1, votes.shape[1]).mean(axis=1)
    statuses = [one.status for one in parsed]
    named = float(np.mean([one.found.sum() for one in parsed])) if parsed else 0.0
    record = _counts(results, statuses) | {"categories_per_answer": named}
    return logits, record, _texts(results, statuses, len(tokens))


def first_turns(system: System, weights: Weights, tokens: Tokens, watch: Watch = ALONE) -> Chains:
    """What the model replies to the first turns. Each is answered, cut at the limit (`truncated`), or empty."""
    results = _generate(system, weights, tokens, watch)
    samples = system.config.formulation.generation.samples
    replies = [answer_of(one.text) for one in results]
    statuses = [
        "empty" if not reply else "truncated" if one.finish_reason == "length" else "answered"
        for one, reply in zip(results, replies, strict=True)
    ]
    each = [replies[sample::samples] for sample in range(samples)]
    return Chains(each, _counts(results, statuses), _texts(results, statuses, len(tokens)))


def _generate(system: System, weights: Weights, tokens: Tokens, watch: Watch) -> list[Generated]:
    """What the model says to each prompt, the samples of a prompt side by side."""
    if jax.process_count() > 1:
        raise ConfigError(f"formulation.kind {system.config.formulation.kind} generates texts in one process only")
    form, samples = system.config.formulation, system.config.formulation.generation.samples
    asked = Asked(
        form.longest_answer,
        temperature=form.generation.temperature,
        top_p=form.generation.top_p,
        seed=system.config.seed if form.generation.temperature else 0,
        stops=() if form.chat else ("\n\n",),  # in plain text, what follows would be the next question
        samples=samples,
    )
    kept = journal(system, tokens, "generate", watch, seed=asked.seed)
    known = {} if kept is None else {row: Generated(**one) for row, one in kept.known.items()}
    prompts = [row.tolist() for row in tokens.ids]
    model = _language_model(system, weights)
    if watch.line is not None:
        watch.line.known(len(known) // samples)
    for batch in model.generate_batches(prompts, asked, known):
        if kept is not None:
            kept.add(list(batch), [dataclasses.asdict(one) for one in batch.values()])
        if watch.line is not None:
            watch.line.advance(len(batch.keys() - known.keys()) // samples)
        known |= batch
    return [known[row] for row in sorted(known)]


def _language_model(system: System, weights: Weights) -> LanguageModel:
    """The network as a language model, whose programs are kept for other splits: its weights never change."""
    if system.language_model is None:
        frozen, trainable = hold_all(system, weights)
        bound = system.network.tuning.bind(frozen, trainable)
        size = system.config.training.eval_batch_size
        network = system.hf_config
        ends = sequence_ends([("model/config.json", network)], system.tokenizer, network["vocab_size"])
        system.language_model = LanguageModel(system.network.module, bound, system.tokenizer, ends, size)
    return system.language_model


def _counts(results: Sequence[Generated], statuses: Sequence[str]) -> dict[str, Any]:
    """Why texts ended, and what they are, counted."""
    reasons = Counter(one.finish_reason for one in results)
    return {
        "finish_reasons": dict(reasons),
        "answers": {name: statuses.count(name) for name in ("answered", "unparsed", "truncated", "empty")},
        "cut_rate": reasons["length"] / max(len(results), 1),
    }


def _texts(results: Sequence[Generated], statuses: Sequence[str], arguments: int) -> list[Text]:
    samples = len(results) // max(arguments, 1)
    return [
        {
            "argument": number // samples,
            "sample": number % samples,
            "text": one.text,
            "finish_reason": one.finish_reason,
            "status": status,
        }
        for number, (one, status) in enumerate(zip(results, statuses, strict=True))
    ]
