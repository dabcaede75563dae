"""From arguments to logits [n, C]: tokens, batches through the compiled steps, calibration, generated answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvalues.data.arguments import STANCES, Argument, Split
from jaxvalues.data.batches import Batch, PlannedBatch, Tokens, collate, evaluation_plan, inputs_shape, model_inputs
from jaxvalues.data.task import TASKS
from jaxvalues.evaluation.thresholds import EXCLUDED
from jaxvalues.run.beginnings import behind, lengths_behind, others, shared_beginning
from jaxvalues.run.console import RunConsole
from jaxvalues.run.features import Hidden, Say, kept_features, silent
from jaxvalues.run.generated import first_turns, listed_logits
from jaxvalues.run.held import hold_all, hold_frozen
from jaxvalues.run.journal import journal
from jaxvalues.run.record import prompt_record
from jaxvalues.run.system import System, Weights
from jaxvalues.run.watch import ALONE, Watch
from jaxvalues.training.compilation import Executables, compile_threads
from jaxvalues.training.feed import made_ahead
from jaxvalues.training.processes import is_alone
from jaxvalues.training.sharding import place_batch

CONTENT_FREE = tuple(Argument(f"no content, {stance}", "N/A", stance, "N/A") for stance in STANCES)
"""Arguments that say nothing, by which answers are calibrated (Zhao et al., 2021, "Calibrate Before Use")."""


class Predicted(NamedTuple):
    """The arguments of a split and their logits [n, C]; of a language model also the record of `run.record`.

    `missing` [n, C] says where the model of an endpoint gave no answer; None for what is computed here.
    """

    split: Split
    logits: np.ndarray
    record: dict[str, Any] | None = None
    generated: list[dict[str, Any]] | None = None  # texts that a language model generated, see `run.generated`
    missing: np.ndarray | None = None


def encode(system: System, split: Split, run_console: RunConsole, name: str | None = None) -> Tokens:
    """Tokenise a split; says what was truncated or left out, about its `name`, which is that of the split by
    default."""
    tokens = system.formulation.encode(split.arguments, split.labels)
    run_console.encoded(name or split.name, tokens, system.config)
    return tokens


def predict_split(system: System, weights: Weights, split: Split, tokens: Tokens, watch: Watch = ALONE) -> Predicted:
    """The logits of a split, whose `tokens` these are."""
    predicted, proposed = _predicted(system, weights, split, tokens, watch), system.proposed(split)
    return predicted if proposed is None else predicted._replace(logits=np.where(proposed, predicted.logits, EXCLUDED))


def _predicted(system: System, weights: Weights, split: Split, tokens: Tokens, watch: Watch) -> Predicted:
    match system.config.formulation.kind:
        case "label_list":
            logits, found, generated = listed_logits(system, weights, tokens, watch)
            record = prompt_record(system, split, tokens) | found
            return Predicted(split, logits, record, generated)
        case "chain_of_thought":
            return _chained(system, weights, split, tokens, watch)
        case _ if system.score_step is not None:
            logits, mass = scored_logits(system, weights, tokens, watch)
            return Predicted(split, logits, prompt_record(system, split, tokens, mass))
        case _ if system.config.formulation.generates:
            return Predicted(split, generated_logits(system, weights, tokens, watch))
    return Predicted(split, likelihood_logits(system, weights, tokens, watch))


def _chained(system: System, weights: Weights, split: Split, tokens: Tokens, watch: Watch) -> Predicted:
    """The second turns of a chain of thought, scored behind what was generated for the first ones.

    The logits of several samples are averaged.
    """
    watch.begin("first turns", len(tokens))
    chains = first_turns(system, weights, tokens, watch)
    scores = []
    for replies in chains.replies:
        second = system.formulation.second_turns(split.arguments, replies)
        watch.begin("second turns", len(second))
        scores.append(scored_logits(system, weights, second, watch))
    logits, mass = (None if part[0] is None else np.mean(part, axis=0) for part in zip(*scores, strict=True))
    record = prompt_record(system, split, tokens, mass) | chains.record
    record["second_turn"] = prompt_record(system, split, second)
    return Predicted(split, logits, record, chains.generated)


def scored_logits(
    system: System, weights: Weights, tokens: Tokens, watch: Watch = ALONE
) -> tuple[np.ndarray, np.ndarray | None]:
    """The logits [n, C] of `likelihood_logits`, and the probability [n, C] of all answer words together.

    It is None where it is not measured: for words of several tokens.
    """
    if system.score_step is None:
        return likelihood_logits(system, weights, tokens, watch), None
    scores = np.zeros((*tokens.questions.categories.shape, 2), np.float32)
    for planned, output in _asked(system, system.score_step, weights, tokens, watch):
        scores[planned.rows] = output[: len(planned.rows)]
    logits, mass = (tokens.to_arguments(scores[..., i]) for i in range(2))
    return logits - _content_free(system, weights), mass


def likelihood_logits(system: System, weights: Weights, tokens: Tokens, watch: Watch = ALONE) -> np.ndarray | None:
    """Logits [n, C] float32 of the arguments that `tokens` are about, in their order; None where `watch` stops it.

    Those of several runs that train together are [R, n, C].
    """
    logits = _row_logits(system, weights, tokens, watch)
    if logits is None:
        return None
    return tokens.to_arguments(logits) - _content_free(system, weights)


def _content_free(system: System, weights: Weights) -> np.ndarray | float:
    """The logits [..., 1, C] of arguments that say nothing, which calibration subtracts; 0 without calibration."""
    if not system.config.formulation.verbalizer.calibrate:
        return 0.0
    tokens = system.formulation.encode(CONTENT_FREE)
    return tokens.to_arguments(_row_logits(system, weights, tokens)).mean(axis=-2, keepdims=True)


def generated_logits(system: System, weights: Weights, tokens: Tokens, watch: Watch = ALONE) -> np.ndarray:
    """Logits [n, C] of open answers: whether a synonym of the category occurs in what the model generates."""
    logits = np.zeros(tokens.questions.categories.shape, np.float32)
    for planned, answers in _outputs(system, system.generate_step, weights, tokens, watch):
        categories = tokens.questions.categories[planned.rows]
        logits[planned.rows] = system.formulation.match(answers[: len(planned.rows)], categories)
    return tokens.to_arguments(logits)


def embed(system: System, weights: Weights, tokens: Tokens) -> np.ndarray:
    """The embeddings [n, E] float32 of the contrastive loss, one of each row of `tokens`."""
    found: list[Any] = [None] * len(tokens)
    for planned, output in _outputs(system, system.embed_step, weights, with_features(system, weights, tokens)):
        for row, index in enumerate(planned.rows):
            found[index] = output[row]
    return np.stack(found).astype(np.float32)


def with_features(system: System, weights: Weights, tokens: Tokens, say: Say = silent) -> Tokens:
    """Tokens with the output of the frozen layers, computed once; unchanged where it differs from step to step.

    `say` gets a sentence where it is kept on disk.
    """
    if not system.network.reuses_features or tokens.hidden is not None:
        return tokens

    def compute() -> Hidden:
        hidden: list[Any] = [None] * len(tokens)
        for planned, output in _outputs(system, system.feature_step, weights, tokens):
            for row, index in enumerate(planned.rows):
                hidden[index] = output[row, : len(tokens.ids[index])].copy()
        return tuple(hidden)

    return dataclasses.replace(tokens, hidden=kept_features(system, tokens, compute, say))


def one_of_each_length(system: System, tokens: Tokens, plan: Sequence[PlannedBatch] | None = None) -> list[Batch]:
    """The inputs of a batch of every shape that predicting `tokens`, or a `plan` of them, needs."""
    size = system.config.training.eval_batch_size
    plan = evaluation_plan(tokens.lengths, system.config.lengths, size) if plan is None else plan
    one = {planned.length: planned for planned in plan}
    return [model_inputs(collate(tokens, planned, size, system.pad_id)) for planned in one.values()]


def _row_logits(system: System, weights: Weights, tokens: Tokens, watch: Watch = ALONE) -> np.ndarray | None:
    """Logits [..., rows, C or K] of every row of `tokens`; None where `watch` stops it."""
    tokens = with_features(system, weights, tokens)
    columns = (
        len(TASKS[system.config.data.task].labels) if tokens.questions is None else tokens.questions.categories.shape[1]
    )
    members = () if system.members is None else (system.members.number,)
    logits = np.zeros((*members, len(tokens), columns), np.float32)
    done = 0
    for planned, output in _asked(system, system.eval_step, weights, tokens, watch):
        logits[..., planned.rows, :] = output[..., : len(planned.rows), :]
        done += len(planned.rows)
    return logits if done == len(tokens) else None


@contextmanager
def _compiling_next(
    system: System, step: Executables, weights: Weights, tokens: Tokens, plan: Sequence[PlannedBatch]
) -> Iterator[None]:
    """A block in which `step` compiles, in a thread, for the batch shapes of a plan of `tokens` after the first."""
    later = one_of_each_length(system, tokens, plan)[1:] if is_alone() else []
    later = [inputs for inputs in later if not step.begun(inputs_shape(inputs))]
    if not later:
        yield
        return
    with compile_threads(1) as pool:
        for inputs in later:
            placed = place_batch(inputs, system.mesh)
            step.start(pool, inputs_shape(inputs), weights.trainable, weights.frozen, placed)
        yield


def _asked(
    system: System, step: Executables, weights: Weights, tokens: Tokens, watch: Watch
) -> Iterator[tuple[PlannedBatch, np.ndarray]]:
    """`_outputs`, where what many prompts begin with is read once."""
    beginning = shared_beginning(tokens.ids) if system.reads_beginnings else None
    if beginning is None:
        yield from _outputs(system, step, weights, tokens, watch)
        return
    ask, read = system.behind(step, len(beginning.ids))
    frozen = hold_frozen(system, weights).frozen
    same = Weights(frozen, read(frozen, beginning.ids))
    rest, rest_tokens = others(tokens, beginning)
    for rows, asked in (
        (beginning.rows, _outputs(system, ask, same, behind(tokens, beginning), watch)),
        (rest, _outputs(system, step, weights, rest_tokens, watch)),
    ):
        for planned, output in asked:
            yield dataclasses.replace(planned, rows=rows[planned.rows]), output


def _outputs(
    system: System, step: Executables, weights: Weights, tokens: Tokens, watch: Watch = ALONE
) -> Iterator[tuple[PlannedBatch, np.ndarray]]:
    """What `step` returns for each batch of `tokens`, one batch behind the device; ends where `watch` stops it.

    What the journal has comes first, and is not computed again.
    """
    size, waiting, line = system.config.training.eval_batch_size, None, watch.line
    lengths, beginning = system.config.lengths, tokens.beginning
    lengths = lengths if beginning is None else lengths_behind(lengths, len(beginning))
    plan = evaluation_plan(tokens.lengths, lengths, size)
    kept = journal(system, tokens, step.name, watch)
    if kept is not None:
        known = [planned for planned in plan if kept.has(planned.rows.tolist())]
        plan = [planned for planned in plan if not kept.has(planned.rows.tolist())]
        if line is not None:
            line.known(sum(len(planned.rows) for planned in known))
        for planned in known:
            yield planned, kept.of(planned.rows.tolist())
    weights = hold_all(system, weights) if beginning is None else weights

    def make(planned: PlannedBatch) -> tuple[PlannedBatch, tuple[int, ...], dict[str, jax.Array]]:
        inputs = model_inputs(collate(tokens, planned, size, system.pad_id))
        return planned, inputs_shape(inputs), place_batch(inputs, system.mesh)

    def finished(planned: PlannedBatch, output: jax.Array) -> tuple[PlannedBatch, np.ndarray]:
        array = np.asarray(output)
        if kept is not None:
            kept.add(planned.rows.tolist(), array[: len(planned.rows)].tolist())
        return planned, array

    with _compiling_next(system, step, weights, tokens, plan), made_ahead(plan, make) as batches:
        for planned, shape, inputs in batches:
            if watch.stop():
                return
            if line is not None and not step.has(shape):
                line.say("compiling")
            output = step(shape, weights.trainable, weights.frozen, inputs)
            if waiting is not None:
                yield finished(*waiting)
            if line is not None:
                line.advance(len(planned.rows))
            waiting = planned, output
    if waiting is not None:
        yield finished(*waiting)
