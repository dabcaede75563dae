"""`jaxvalues bench --preset compile`: what it costs to start a training step, in every way there is.

Each way runs in a fresh process with caches of its own: op by op, one program of unrolled or of scanned layers, with
rematerialisation, a program read from the persistent cache, an executable that was saved; torch eager, and compiled as
a whole or block by block. Whether a process compiled or read is counted from JAX's events and torch's counters.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console

from jaxvalues.bench.compile_task import EAGER, JAX, TORCH
from jaxvalues.bench.inputs import planned_batches, random_batch
from jaxvalues.bench.machine import describe_machine, machine_in_words, warn_if_busy
from jaxvalues.bench.measure import Options, make_task, write
from jaxvalues.bench.report import make_table
from jaxvalues.bench.task import PEFT, Task
from jaxvalues.config import Config, parse_config
from jaxvalues.errors import UserError

_BERT = {
    "model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2, "pad_token_id": 0,
}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {
    "bert-base": _BERT,
    "deberta-v3-base": {
        **_BERT, "model_type": "deberta-v2", "vocab_size": 128100, "type_vocab_size": 0, "layer_norm_eps": 1e-7,
        "relative_attention": True, "position_buckets": 256, "max_relative_positions": -1, "pos_att_type": "p2c|c2p",
        "position_biased_input": False, "share_att_key": True, "norm_rel_ebd": "layer_norm",
    },
    "t5-base": {
        "model_type": "t5", "vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12,
        "num_heads": 12, "feed_forward_proj": "relu", "tie_word_embeddings": True, "decoder_start_token_id": 0,
        "pad_token_id": 0, "eos_token_id": 1,
    },
    "gpt2": {
        "model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12,
    },
}  # fmt: skip
"""The shapes of networks that `--preset compile` measures, with random weights. Everything trains."""


def config_of(network: str) -> Config:
    """The config of one of `NETWORKS`: a classifier, or for T5 and GPT-2 questions that are answered Yes or No."""
    asks = network in ("t5-base", "gpt2")
    size = {"questions_per_step": 8} if asks else {"batch_size": 8}
    return parse_config({
        "name": network,
        "data": {"source": "sample", "max_length": 64, "buckets": [64]},
        "model": {"config": NETWORKS[network], "train_tokenizer": {"vocab_size": 1000}},
        "formulation": {"kind": "answer" if asks else "classify"},
        "training": {**size, "eval_batch_size": 8},
    })  # fmt: skip


def compiling(configs: Sequence[Config], console: Console, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Measure every way for each config, and print a table for each.

    `keep` gets everything measured after each config. Raises UserError where a process fails.
    """
    before, cases = os.getloadavg(), []
    left_out = why_no_torch()
    if left_out is not None:
        console.print(left_out, highlight=False)
    for config in configs:
        with tempfile.TemporaryDirectory(prefix="jaxvalues-compile-") as folder:
            ways = _measure(config.explicit(), folder, TORCH if left_out is None else (), console)
        for way, one in ways.items():
            if EAGER[way] in ways:
                one["break_even_step"] = break_even(one, ways[EAGER[way]])
        cases.append({"network": config.name, "ways": ways})
        result = {"bench": "compile", "cases": cases, "left_out": left_out, "machine": describe_machine(before)}
        keep(result)  # now: the next network may take minutes, or fail
    render_compiling(result, console)
    return result


def why_no_torch() -> str | None:
    """Why torch is left out, in a sentence; None where it can compile."""
    if importlib.util.find_spec("torch") is None:
        return "torch is left out: it is not installed (pip install 'jaxvalues[parity]')."
    if shutil.which(os.environ.get("CXX", "g++")) is None and shutil.which("clang++") is None:
        return "torch is left out: torch.compile needs a C++ compiler, and neither g++ nor clang++ is here."
    return None


def break_even(way: Mapping[str, Any], eager: Mapping[str, Any]) -> int | None:
    """The number of steps from which on a way has taken less time than its eager one; None if it never has.

    The time after n steps is that of the first one and n − 1 times that of a later one.
    """
    gain = eager["steady_s"] - way["steady_s"]
    late = way["first_s"] - eager["first_s"]
    if late <= 0 and gain >= 0:
        return 1
    return None if gain <= 0 else max(1, math.ceil(late / gain) + 1)


def _measure(config: Config, folder: str, torch: Sequence[str], console: Console) -> dict[str, Any]:
    task, tokens, pad = make_task(
        config, (PEFT,) if config.formulation.asks_questions else (), folder, Options(work=("train",))
    )
    ids = range(task.hf_config.get("pad_token_id", 0) + 1, task.hf_config["vocab_size"])
    batch = random_batch(planned_batches(tokens, config, "train", pad), config.lengths[-1], ids)
    task = write(replace(task, work="train"), "compile", batch, folder)
    ways: dict[str, Any] = {}
    kept = tempfile.mkdtemp(dir=folder)  # what "jit" leaves is what the two warm ways find
    for way in (*JAX, *torch):
        warm = way in ("jit", "warm cache", "loaded executable")
        settings = {"scan": way in ("jit + scan", "scan + remat"), "remat": way == "scan + remat"}
        own = {**task.config, "model": {**task.config["model"], **settings}}
        one = replace(task, config=own, cache=kept if warm else tempfile.mkdtemp(dir=folder))
        if way in TORCH:
            one = replace(one, **{key: ways[JAX[0]][key] for key in ("dtype", "platform")})
        ways[way] = _process(way, one)
        console.print(f"{config.name}, {way}: first step {ways[way]['first_s']:.1f} s", highlight=False)
    for way, wanted in (("jit", "misses"), ("warm cache", "hits")):
        if not ways[way][wanted]:
            raise UserError(f"{config.name}: {way} counted no {wanted} of the compile cache, so it measures nothing")
    return ways


def _process(way: str, task: Task) -> dict[str, Any]:
    """The result of a fresh process. Raises UserError with the last line of one that fails."""
    command = [sys.executable, "-m", "jaxvalues.bench.compile_task", way, json.dumps(asdict(task))]
    places = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": task.cache}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=places)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{way} stopped with exit code {done.returncode}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


_COLUMNS = ("trace", "lower", "compile\nor read", "first\nstep", "steady\nstep", "break-\neven", "exe-\ncutables")
_COLUMNS += ("hits", "cache\nMB", "peak\nGB")


def render_compiling(result: dict[str, Any], console: Console) -> None:
    """Print the conditions, and a table for each network; times are in seconds."""
    console.print(machine_in_words(result["machine"]), highlight=False)
    for case in result["cases"]:
        first = next(iter(case["ways"].values()))
        title = (
            f"{case['network']}: {first['parameters']:,} parameters in {first['dtype']} on {first['device']}, seconds"
        )
        table = make_table(title, ("way",), _COLUMNS)
        for way, one in case["ways"].items():
            times = (one[name] for name in ("trace_s", "lower_s", "compile_s", "first_s", "steady_s"))
            even = one.get("break_even_step")
            table.add_row(
                way,
                *("" if value is None else f"{value:.3g}" for value in times),
                "" if way in EAGER.values() else "never" if even is None else str(even),
                f"{one['executables']:.0f}",
                f"{one['hits']:.0f}",
                f"{one['cache_bytes'] / 1e6:.1f}",
                f"{one['peak_bytes'] / 1e9:.1f}",
            )
        console.print(table)
    console.print("Break-even: the step from which on a way has taken less time than eager steps of the same library.")
    warn_if_busy(result["machine"], console.print)
