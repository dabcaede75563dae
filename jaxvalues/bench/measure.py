"""`jaxvalues bench`: time the training step and inference of a config's model beside other implementations (peers).

For every kind of work and every length, each contender that compiles starts once with an empty compile cache, alone,
and once with the cache that this left. Then all contenders take turns, one sample each, so that other load on the
machine affects all alike. Read the results as ratios between contenders of the same run.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jaxvalues.bench.inputs import (
    encode,
    planned_batches,
    positions,
    random_batch,
    random_rows,
    real_batch,
    separate_questions,
)
from jaxvalues.bench.machine import describe_machine
from jaxvalues.bench.peers import (
    PEERS,
    check_comparable,
    check_generation,
    check_relative_attention,
    default_peers,
    missing_packages,
)
from jaxvalues.bench.report import describe_shape, generation_rates, render
from jaxvalues.bench.task import APART, GENERATION, NOT_COMPILED, PEFT, PEFTS, Task
from jaxvalues.bench.worker import Worker
from jaxvalues.config import Config, check_no_url
from jaxvalues.config.writing import check_writable, write_json, writing
from jaxvalues.data.batches import Batch, Tokens, inputs_shape
from jaxvalues.data.loading import load_split
from jaxvalues.data.tokenizers import pad_id
from jaxvalues.errors import ConfigError
from jaxvalues.formulations import load_texts, make_formulation
from jaxvalues.run.base import find_base, find_tokenizer, fit_to_tokenizer

WORK = ("train", "inference")
SAMPLE_SECONDS = 0.25  # minimum length of a sample, so that timer and launch overhead are negligible
MICRO_BATCHES = {"jaxvalues": (1, 4), APART: (1, 4, 20)}
"""The numbers of micro-batches to try with the peer `jaxvalues-apart`. Its rows are much longer in total than branched
ones, so the best batch sizes differ; each contender is measured with its fastest."""


@dataclass(frozen=True)
class Options:
    """The options of `jaxvalues bench` beside the config."""

    peers: tuple[str, ...] = ()  # empty: the default peer of the formulation
    work: tuple[str, ...] = WORK
    lengths: tuple[int, ...] = ()  # in tokens; empty: the buckets of the config
    repeats: int = 7  # samples per contender
    warmup: int = 1  # samples before these, discarded
    new_tokens: int = 64  # that `generate` adds to each row
    real: bool = False  # use a batch of the training split instead of random tokens without padding

    def __post_init__(self) -> None:
        for name, given, known in (("peer", self.peers, PEERS), ("work", self.work, (*WORK, *GENERATION))):
            for one in given:
                if one not in known:
                    raise ConfigError(f"--{name} is `{one}`, expected one of {', '.join(known)}")
        if self.repeats < 1 or self.warmup < 0:
            raise ConfigError("--repeats must be at least 1 and --warmup at least 0")
        if short := [length for length in self.lengths if length < 1]:
            raise ConfigError(f"--length is {short[0]}, expected at least 1")
        if self.new_tokens < 2:
            raise ConfigError(f"--new-tokens is {self.new_tokens}, expected at least 2: prefill makes the first")
        if self.real and self.generates:
            raise ConfigError("--real has rows of mixed lengths: text is generated after random tokens without padding")

    @property
    def generates(self) -> bool:
        """Whether text is generated; that is measured apart from steps (see `check_generation`)."""
        return any(one in GENERATION for one in self.work)


def bench(config: Config, options: Options, console: Console, file: Path | None = None) -> dict[str, Any]:
    """Measure, print a table, and write all measurements to `file` (JSON), after each case. Returns the measurements.

    Where no peer is named and the default one is not installed, jaxvalues is measured alone, which is printed.
    Raises UserError when a named peer is not installed, and ConfigError for a config that a peer cannot match.
    """
    config = config.explicit()
    if file is not None:
        check_file("--json", file)
    peers = tuple(peer for peer in options.peers or default_peers(config, options.generates) if peer != "none")
    if not options.peers and (missing := missing_packages(peers)):
        console.print(
            f"Measuring jaxvalues alone: {peers[0]} needs {' and '.join(missing)} (pip install 'jaxvalues[parity]').",
            highlight=False, markup=False,
        )  # fmt: skip
        peers = ()
    if not options.generates:
        check_comparable(config, peers)
    with tempfile.TemporaryDirectory(prefix="jaxvalues-bench-") as folder:
        task, tokens, pad = make_task(config, peers, folder, options)
        hf_config = task.hf_config
        ids = range(hf_config.get("pad_token_id", 0) + 1, hf_config["vocab_size"])
        before, cases = os.getloadavg(), []
        result = {
            "bench": "steps",
            "config": config.name,
            "model": {key: value for key, value in hf_config.items() if not isinstance(value, dict | list)},
            "tokens": "a batch of the training split" if options.real else "random, no padding",
            "cases": cases,
        }
        for length, work in itertools.product(options.lengths or config.lengths, options.work):
            asked = replace(task, work=work, new_tokens={"prefill": 1, "generate": options.new_tokens}.get(work, 0))
            if work in GENERATION:
                batch = random_rows(config.training.eval_batch_size, length, ids)
            else:
                planned = planned_batches(tokens, config, work, pad)
                batch = real_batch(planned, length) if options.real else random_batch(planned, length, ids)
            batches = {
                name: separate_questions(batch, pad) if name == APART else batch for name in ("jaxvalues", *peers)
            }
            tasks = {name: (write(asked, name, one, folder),) for name, one in batches.items()}
            if APART in peers:
                tasks = {name: micro_batch_variants(one, MICRO_BATCHES[name]) for name, (one,) in tasks.items()}
            shape = list(inputs_shape(batch))
            say = partial(_say, console, f"{work}, {describe_shape(shape)} tokens")
            case = measure(tasks, options, Path(folder), say)
            for name, one in batches.items():
                case[name]["positions"] = positions(one, config)
            cases.append({"work": work, "shape": shape, "new_tokens": asked.new_tokens, "contenders": case})
            say("measured")
            result |= {"machine": describe_machine(before), "generation": generation_rates(cases)}
            if file is not None:  # now: the next case may take minutes, or fail
                write_json(file, result)
    render(result, console)
    if file is not None:
        console.print(f"Everything measured is in {file}.", highlight=False, markup=False, emoji=False)
    return result


def make_task(config: Config, peers: Sequence[str], folder: str, options: Options) -> tuple[Task, Tokens | None, int]:
    """The task of all contenders, without work and batch, the encoded training split, and the id of padding.

    Nothing is encoded where texts are generated. The tokenizer is saved in `folder`.
    """
    base = find_base(config.model, config.seed)
    check_generation(config, base.hf_config["model_type"], options.work, peers)
    check_relative_attention(base.hf_config, peers)
    split = load_split(config.data.train, source=config.data.source, dir=config.data.dir)
    template = load_texts(config.formulation)
    tokenizer = find_tokenizer(config, base, split, template)
    tokenizer.save_pretrained(Path(folder) / "tokenizer")
    hf_config = fit_to_tokenizer(base.hf_config, tokenizer, base.is_random)
    formulation = make_formulation(
        config.formulation, tokenizer, template, config.data.max_length, hf_config["model_type"]
    )
    if any(peer in PEFTS for peer in peers) and formulation.verbalizer.tokens > 1:
        raise ConfigError(f"--peer {PEFT} needs answer words of one token, but the verbalizer has longer ones")
    task = Task(
        work="",
        config=config.model_dump(mode="json"),
        hf_config=hf_config,
        tokenizer=str(Path(folder) / "tokenizer"),
        batch="",
        cache="",
        platform="",
        dtype="",
        words=formulation.constants,
    )
    tokens = None if options.generates else encode(formulation, split, peers)
    return task, tokens, pad_id(tokenizer)


def check_file(option: str, file: Path) -> None:
    """Raise ConfigError unless `file`, given by an option, can be written: before minutes of measuring, not after."""
    check_no_url(option, file)
    with writing(f"{option} {file}"), suppress(FileNotFoundError):
        os.stat(file)  # fails for a name that is too long and for a loop of links
    if file.is_dir() or not file.parent.is_dir():
        problem = "is a folder" if file.is_dir() else f"the folder {file.parent} does not exist"
        raise ConfigError(f"{option} {file}: {problem}, expected a file to write in a folder that exists")
    check_writable(file.parent, f"{option}: the folder")


def write(task: Task, name: str, batch: Batch, folder: str) -> Task:
    """Save the batch of contender `name` in `folder`. Returns the task with its path, and its size in the config."""
    file, rows = Path(folder) / f"{name}-{task.work}.npz", len(batch["input_ids"])
    np.savez(file, **batch)
    training = {**task.config["training"], "batch_size": rows, "eval_batch_size": rows, "questions_per_step": None}
    return replace(task, batch=str(file), config={**task.config, "training": training})


def micro_batch_variants(task: Task, micro_batches: Sequence[int]) -> tuple[Task, ...]:
    """The task with each of these numbers of micro-batches that divides its rows."""
    training = task.config["training"]
    rows = training["batch_size"]
    sizes = ({"accumulation": n, "eval_batch_size": rows // n} for n in micro_batches if rows % n == 0)
    return tuple(replace(task, config={**task.config, "training": {**training, **one}}) for one in sizes)


def fastest(name: str, tasks: Sequence[Task], folder: Path) -> Task:
    """The task of `tasks` whose second step is the fastest."""
    if len(tasks) == 1:
        return tasks[0]

    def seconds(task: Task) -> float:
        with Worker(name, replace(task, cache=tempfile.mkdtemp(dir=folder))) as worker:
            worker.first()
            return worker.run(1)

    return min(tasks, key=seconds)


def _say(console: Console, case: str, text: str) -> None:
    console.print(f"{case}: {text}", highlight=False, markup=False)


def measure(
    choices: Mapping[str, Sequence[Task]], options: Options, folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure one case. Returns {contender: description, first steps, samples and quartiles in seconds per step}.

    `choices` are the tasks that each contender may run; the fastest is measured. What takes long is told to `say`.
    """
    results: dict[str, Any] = {name: {} for name in choices}
    tasks: dict[str, Task] = {}
    where = {}
    for name, result in results.items():
        tasks[name] = replace(fastest(name, choices[name], folder), cache=tempfile.mkdtemp(dir=folder), **where)
        if name not in NOT_COMPILED:
            with Worker(name, tasks[name]) as cold:
                result |= {"is": cold.describe(), "cold": cold.first()}
            say(f"{name}, nothing in the compile cache: first step {result['cold']['seconds']:.3g} s")
        if name == "jaxvalues":  # the peers use its platform and dtype
            where = {key: result["is"][key] for key in ("platform", "dtype")}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, one)) for name, one in tasks.items()}
        for name, worker in workers.items():
            results[name] |= {"is": worker.describe(), "warm": worker.first()}
            again = "" if name in NOT_COMPILED else ", compiled before"
            say(f"{name}{again}: first step {results[name]['warm']['seconds']:.3g} s")

        # One warm step of the fastest contender gives the number of steps per sample.
        count = math.ceil(SAMPLE_SECONDS / min(worker.run(1) for worker in workers.values()))
        samples = {name: [] for name in workers}
        for turn in range(options.warmup + options.repeats):
            for name, worker in workers.items():
                seconds = worker.run(count)
                if turn >= options.warmup:
                    samples[name].append(seconds)
        for name, worker in workers.items():
            low, median, high = np.percentile(samples[name], (25, 50, 75)).tolist()
            results[name] |= {
                "samples_s": samples[name],
                "steps_a_sample": count,
                "quartiles_s": [low, high],
                "median_s": median,
                "peak_bytes": worker.peak_bytes(),
            }
    ours = results["jaxvalues"]
    for one in results.values():
        one["times_as_fast_as_jaxvalues"] = ours["median_s"] / one["median_s"]
        one["times_the_memory_of_jaxvalues"] = one["peak_bytes"] / ours["peak_bytes"]
    return results
