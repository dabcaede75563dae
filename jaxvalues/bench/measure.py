"""`jaxvalues bench`: train step and inference of a config's model, side by side with torch on the same machine.

For every kind of work and every length: each contender that compiles starts once on an empty cache, alone, and once on
the one it left; then all take turns, a sample each, so that whatever else the machine does meets all alike. Performance
is read as a ratio to the named peer of the same run.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import platform
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jaxvalues.assembly import find_base, find_tokenizer, fit_to_tokenizer
from jaxvalues.bench.report import render
from jaxvalues.bench.worker import GATHER, Task, Worker
from jaxvalues.config import Config
from jaxvalues.data.arguments import load_split
from jaxvalues.data.batches import Batch, TrainingBatches
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.tokenizers import pad_id
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.formulations import load_texts
from jaxvalues.formulations.classify import Classify
from jaxvalues.provenance import write_json

WORK = ("train", "inference")
TORCH = ("torch-eager", "torch-compile")
PEERS = (*TORCH, GATHER, "none")
SAMPLE_SECONDS = 0.25  # a sample is as many steps as last this long, so that a clock and a launch weigh nothing


@dataclass(frozen=True)
class Options:
    """What `jaxvalues bench` is asked for besides the config."""

    peers: tuple[str, ...] = ("torch-eager",)
    work: tuple[str, ...] = WORK
    lengths: tuple[int, ...] = ()  # in tokens; none: the config's buckets
    repeats: int = 7  # samples of each contender
    warmup: int = 1  # samples before those, thrown away
    real: bool = False  # a batch of the config's training split, not random tokens without padding

    def __post_init__(self) -> None:
        for name, given, known in (("peer", self.peers, PEERS), ("work", self.work, WORK)):
            for one in given:
                if one not in known:
                    raise ConfigError(f"--{name} is `{one}`, expected one of {', '.join(known)}")
        if self.repeats < 1 or self.warmup < 0:
            raise ConfigError("--repeats must be at least 1 and --warmup at least 0")


def bench(config: Config, options: Options, console: Console, file: Path | None = None) -> dict[str, Any]:
    """Measure, print a table, and write everything to `file` (JSON). Returns what is written.

    Raises UserError when torch is missing, and ConfigError for a config that a peer cannot match.
    """
    peers = tuple(peer for peer in options.peers if peer != "none")
    check_comparable(config, peers)
    with tempfile.TemporaryDirectory(prefix="jaxvalues-bench-") as folder:
        base = find_base(config.model, config.seed)
        check_form(base.hf_config, peers)
        split = load_split(config.data.train, source=config.data.source, dir=config.data.dir)
        template = load_texts(config.formulation)
        tokenizer = find_tokenizer(config, base, split, template)
        tokenizer.save_pretrained(Path(folder) / "tokenizer")
        task = Task(
            work="",
            config=config.model_dump(mode="json"),
            hf_config=fit_to_tokenizer(base.hf_config, tokenizer, base.is_random),
            tokenizer=str(Path(folder) / "tokenizer"),
            batch="",
            cache="",
            platform="",
            dtype="",
        )
        tokens = Classify(tokenizer, template, config.data.max_length).encode(split.arguments, split.labels)
        batches = TrainingBatches(tokens, config.lengths, config.training.batch_size, config.seed, pad_id(tokenizer))
        before, cases = os.getloadavg(), []
        for length, work in itertools.product(options.lengths or config.lengths, options.work):
            rows = config.training.batch_size if work == "train" else config.training.eval_batch_size
            batch = real_batch(batches, length) if options.real else random_batch(task.hf_config, rows, length)
            file_of_batch = Path(folder) / f"{work}-{length}.npz"
            np.savez(file_of_batch, **batch)
            case = measure(replace(task, work=work, batch=str(file_of_batch)), peers, options, Path(folder))
            cases.append({"work": work, "shape": list(batch["input_ids"].shape), "contenders": case})
            console.print(f"{work}, {' × '.join(map(str, cases[-1]['shape']))} tokens: measured.", highlight=False)
    result = {
        "config": config.name,
        "model": {key: value for key, value in task.hf_config.items() if not isinstance(value, dict | list)},
        "tokens": "a batch of the training split" if options.real else "random, no padding",
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "load_before": before,
            "load_after": os.getloadavg(),
        },
        "cases": cases,
    }
    render(result, console)
    if file is not None:
        write_json(file, result)
        console.print(f"Everything measured is in {file}.", highlight=False)
    return result


def measure(task: Task, peers: Sequence[str], options: Options, folder: Path) -> dict[str, Any]:
    """One case: {contender: what it is, its first steps, all samples and their quartiles in seconds a step}."""
    results: dict[str, Any] = {name: {} for name in ("jaxvalues", *peers)}
    tasks = {}
    for name, result in results.items():
        tasks[name] = replace(task, cache=tempfile.mkdtemp(dir=folder))
        if name != "torch-eager":
            with Worker(name, tasks[name]) as cold:
                result |= {"is": cold.describe(), "cold": cold.first()}
        if name == "jaxvalues":  # it says where it runs and how, and the peers follow
            task = replace(task, platform=result["is"]["platform"], dtype=result["is"]["dtype"])
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, one)) for name, one in tasks.items()}
        for name, worker in workers.items():
            results[name] |= {"is": worker.describe(), "warm": worker.first()}

        # As many steps a sample as the fastest needs to fill it; one steady step tells.
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
    for one in results.values():
        one["times_as_fast_as_jaxvalues"] = results["jaxvalues"]["median_s"] / one["median_s"]
    return results


def check_comparable(config: Config, peers: Sequence[str]) -> None:
    """Raise for a task other than values; and where torch is a peer, unless it is there and does the same work."""
    if config.data.task != "values":
        raise ConfigError(f"data.task is {config.data.task}, and bench measures the 20 outputs of the task values")
    if not set(peers) & set(TORCH):
        return
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            "the peer needs torch: pip install 'jaxvalues[parity]', or measure jaxvalues alone (--peer none)"
        )
    if config.tuning.method != "full":
        raise ConfigError(
            f"tuning.method is {config.tuning.method}, but the peer trains everything; use full, or --peer none"
        )
    if config.training.accumulation != 1:
        raise ConfigError("training.accumulation must be 1 for the peer to do the same work; or use --peer none")
    if config.optimizer.schedule != "cosine" or config.optimizer.layer_decay != 1:
        raise ConfigError("the peer has a cosine schedule and no layer decay: use those, or --peer none")


def check_form(hf_config: dict[str, Any], peers: Sequence[str]) -> None:
    """Raise where the gathering form of relative attention is a peer, unless the model has such attention."""
    if GATHER in peers and not hf_config.get("relative_attention"):
        raise ConfigError(f"--peer {GATHER} lays relative attention out otherwise, and this model has none")


def random_batch(hf_config: dict[str, Any], rows: int, length: int) -> Batch:
    """Random tokens without padding, and random labels."""
    random = np.random.default_rng(0)
    first = hf_config.get("pad_token_id", 0) + 1
    return {
        "input_ids": random.integers(first, hf_config["vocab_size"], (rows, length), np.int32),
        "attention_mask": np.ones((rows, length), np.int32),
        "weights": np.ones(rows, np.float32),
        "labels": random.integers(0, 2, (rows, len(CATEGORIES))).astype(np.float32),
    }


def real_batch(batches: TrainingBatches, length: int) -> Batch:
    """The first training batch that is padded to `length`, as a run meets it."""
    epoch = itertools.islice(batches.starting_at(0), batches.steps_per_epoch)
    batch = next((batch for batch in epoch if batch["input_ids"].shape[1] == length), None)
    if batch is None:
        raise UserError(f"no training batch is padded to {length} tokens, only to {batches.lengths()}")
    return batch


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
