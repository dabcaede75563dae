"""`jaxvalues bench --preset feed`: whether the host keeps the device busy on a network so small that the host decides.

Steps of a training run, three ways in turn: with one batch that stays on the device (`resident`, the fastest there can
be), with batches that are made and placed ahead in a thread (`ahead`, what a run does), and with each made and placed
when the step before has been dispatched (`in turn`). Metrics are read one step behind in all of them.
"""

from __future__ import annotations

import io
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxvalues.bench.machine import describe_machine, machine_in_words, warn_if_busy
from jaxvalues.bench.report import make_table
from jaxvalues.config import Config
from jaxvalues.data.batches import Batch, inputs_shape
from jaxvalues.run.console import RunConsole
from jaxvalues.run.held import hold_frozen
from jaxvalues.run.inputs import prepare
from jaxvalues.run.network import count
from jaxvalues.run.process import start_process
from jaxvalues.run.resolve import resolve
from jaxvalues.run.state import initial_state, initial_weights, training_stages
from jaxvalues.training.feed import made_ahead
from jaxvalues.training.sharding import place_batch

WAYS = ("resident", "ahead", "in turn")
STEPS, TURNS = 200, 5

TINY: dict[str, Any] = {
    "name": "feed",
    "data": {"source": "sample", "max_length": 64, "buckets": [64]},
    "model": {
        "config": {
            "model_type": "roberta", "hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4,
            "intermediate_size": 256, "max_position_embeddings": 67, "type_vocab_size": 1,
        },
        "train_tokenizer": {"vocab_size": 4000},
    },
    "training": {"batch_size": 16, "eval_batch_size": 16},
}  # fmt: skip
"""The RoBERTa of the quickstart, 16 arguments a step."""

Placed = tuple[tuple[int, ...], dict[str, jax.Array]]


def feed(config: Config, console: Console, *, steps: int = STEPS, turns: int = TURNS) -> dict[str, Any]:
    """Measure steps per second in each of `WAYS`, and print a table."""
    before = os.getloadavg()
    quiet = RunConsole(Console(file=io.StringIO()), brief=True)
    start_process(config, quiet.console)
    config = resolve(config)
    inputs = prepare(config, quiet)
    system, batches = inputs.system, inputs.batches
    stage = training_stages(system, batches.steps_per_epoch, inputs.parts.training.labels)[-1]
    weights = hold_frozen(system, initial_weights(system, inputs.base, config.seed))
    frozen, state = weights.frozen, initial_state(system, weights.trainable)
    parameters = count(weights)

    def place(batch: Batch) -> Placed:
        return inputs_shape(batch), place_batch(batch, system.mesh)

    resident = {}
    for batch in batches.one_of_each_length():
        shape, placed = place(batch)
        resident[shape] = placed

    shapes = [inputs_shape(batch) for batch in itertools.islice(batches.starting_at(0), steps)]

    def stream(way: str) -> AbstractContextManager[Iterator[Placed]]:
        if way == "ahead":
            return made_ahead(batches.starting_at(0), place)
        if way == "in turn":
            return nullcontext(map(place, batches.starting_at(0)))
        return nullcontext(itertools.cycle([(shape, resident[shape]) for shape in shapes]))

    def run(way: str, number: int) -> float:
        nonlocal state
        with stream(way) as placed:
            start, waiting = time.perf_counter(), None
            for _, (shape, batch) in zip(range(number), placed, strict=False):
                state, metrics = stage.step(shape, state, frozen, batch, stage.hyper)
                if waiting is not None:
                    {name: np.asarray(value) for name, value in waiting.items()}
                waiting = metrics
            jax.block_until_ready(state)
            return number / (time.perf_counter() - start)

    samples: dict[str, list[float]] = {way: [] for way in WAYS}
    for way in WAYS:
        run(way, 3)
    for _ in range(turns):
        for way in WAYS:
            samples[way].append(run(way, steps))
    rates = {way: median(samples[way]) for way in WAYS}
    result = {
        "bench": "feed",
        "config": config.name,
        "dtype": str(np.dtype(system.network.dtype)),
        "parameters": parameters,
        "rows": batches.rows,
        "steps_per_s": rates,
        "samples": samples,
        "share_of_resident": {way: rates[way] / rates["resident"] for way in WAYS},
        "machine": describe_machine(before),
    }
    render_feed(result, console)
    return result


def render_feed(result: dict[str, Any], console: Console) -> None:
    """Print the conditions and the table."""
    console.print(
        f"{result['config']}: {result['parameters']:,} parameters in {result['dtype']}, {result['rows']} rows a step",
        highlight=False,
    )
    console.print(machine_in_words(result["machine"]), highlight=False)
    table = make_table("Steps per second", ("batches",), ("median", "range", "of resident"))
    for way in WAYS:
        low, high = min(result["samples"][way]), max(result["samples"][way])
        share = result["share_of_resident"][way]
        table.add_row(way, f"{result['steps_per_s'][way]:.1f}", f"{low:.1f}–{high:.1f}", f"{share:.2f}")
    console.print(table)
    warn_if_busy(result["machine"], console.print)
