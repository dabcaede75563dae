"""`jaxvalues bench --preset sweep`: a sweep over learning rates, trained together, beside one process for each rate.

Both are whole commands: start, data, weights, compiling, training, evaluation and files. Both begin with an empty
compile cache; the processes share theirs, so that all but the first read their programs from it. They run one after
another, as each uses all cores. The steady state, steps alone, stands beside it.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console

from jaxvalues.bench.machine import describe_machine, machine_in_words, warn_if_busy
from jaxvalues.bench.report import make_table
from jaxvalues.config import Config, load_config
from jaxvalues.errors import UserError
from jaxvalues.evaluation.predictions import read_logits
from jaxvalues.run.console import RunConsole
from jaxvalues.run.process import start_process
from jaxvalues.run.together import together_key, train_together
from jaxvalues.training.memory import peak_process_bytes
from jaxvalues.training.metrics import read_metrics

RATES = 8
GPT2_PROMPT: dict[str, Any] = {
    "name": "sweep",
    "data": {
        "source": "sample", "held_out": 0.1, "fraction": 0.195, "report": [], "max_length": 64, "buckets": [64],
    },
    "model": {
        "config": {
            "model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12,
        },
        "train_tokenizer": {"vocab_size": 1000},
    },
    "formulation": {"kind": "answer"},
    "tuning": {"method": "prompt", "length": 20},
    "training": {"questions_per_step": 8, "eval_batch_size": 8, "epochs": 1, "keep": "last", "log_every": 10},
    "logging": {"tensorboard": False},
}  # fmt: skip
"""Prompts on the shape of GPT-2 small, 8 questions a step, 100 steps."""


def sweep(config: Config, console: Console, *, rates: int = RATES) -> dict[str, Any]:
    """Measure a sweep of `rates` learning rates around that of the config, and print a table.

    Raises UserError where the config's runs cannot train together, or a command fails.
    """
    config, before = config.explicit(), os.getloadavg()
    if together_key(config) is None:
        raise UserError(f"runs of tuning.method {config.tuning.method} do not train together, so there is no sweep")
    values = [float(f"{config.optimizer.learning_rate * factor:.3g}") for factor in np.geomspace(0.25, 4.0, rates)]
    with tempfile.TemporaryDirectory(prefix="jaxvalues-sweep-") as name:
        folder = Path(name)
        console.print(f"{rates} learning rates together …", highlight=False)
        together = [_timed([*_TOGETHER, *_words(config, folder / "together", values)])]
        alone = []
        for number, value in enumerate(values):
            console.print(f"process {number + 1} of {rates} …", highlight=False)
            alone.append(_timed([*_ALONE, *_words(config, folder / "alone", [value])]))
        runs = {kind: [folder / kind / str(value) for value in values] for kind in ("together", "alone")}
        steps = {kind: median(map(_step_seconds, folders)) for kind, folders in runs.items()}
        logits = [[read_logits(run / "logits-held_out.tsv").values for run in folders] for folders in runs.values()]
        total = max(values_["step"] for _, values_ in read_metrics(runs["alone"][0] / "metrics.jsonl"))
    seconds = {"together": sum(one["seconds"] for one in together), "alone": sum(one["seconds"] for one in alone)}
    result = {
        "bench": "sweep",
        "config": config.name,
        "dtype": together[0]["dtype"],
        "rates": values,
        "steps": total,
        "seconds": seconds,
        "each_process_s": [one["seconds"] for one in alone],
        "share": seconds["together"] / seconds["alone"],
        "step_s": steps,
        "steady_share": steps["together"] / (rates * steps["alone"]),
        "peak_bytes": {"together": together[0]["peak_bytes"], "alone": max(one["peak_bytes"] for one in alone)},
        "largest_difference_of_logits": float(np.abs(np.subtract(*map(np.array, logits))).max()),
        "machine": describe_machine(before),
    }
    render_sweep(result, console)
    return result


def render_sweep(result: dict[str, Any], console: Console) -> None:
    """Print the conditions and the table of a sweep."""
    number, seconds, steps = len(result["rates"]), result["seconds"], result["step_s"]
    console.print(f"{result['config']}: {number} learning rates, {result['steps']} steps each, {result['dtype']}")
    console.print(machine_in_words(result["machine"]), highlight=False)
    table = make_table("Sweep", ("",), ("seconds in all", "seconds a step of all", "GB"))
    rows = {"together": steps["together"], "alone": number * steps["alone"]}
    for kind, name in (("together", "one process, together"), ("alone", f"{number} processes")):
        peak = f"{result['peak_bytes'][kind] / 1e9:.1f}"
        table.add_row(name, f"{seconds[kind]:.1f}", f"{rows[kind]:.3g}", peak)
    table.add_row("share", f"{result['share']:.2f}", f"{result['steady_share']:.2f}", "")
    console.print(table)
    found = result["largest_difference_of_logits"]
    console.print(f"The held-out logits differ by at most {found:.1g}.", highlight=False)
    warn_if_busy(result["machine"], console.print)


_TOGETHER = (sys.executable, "-m", "jaxvalues.bench.sweep", "together")
_ALONE = (sys.executable, "-m", "jaxvalues.bench.sweep", "alone")


def _words(config: Config, folder: Path, values: Sequence[float]) -> list[str]:
    """The arguments of a process: its config file, its folder, its learning rates."""
    folder.mkdir(exist_ok=True)
    file = folder / "config.yaml"
    runtime = config.runtime.model_copy(update={"compilation_cache": str(folder / "xla")})
    file.write_text(config.model_copy(update={"runtime": runtime}).to_yaml(), encoding="utf-8")
    return [str(file), str(folder), *map(str, values)]


def _timed(command: Sequence[str]) -> dict[str, Any]:
    """What a process says of itself, and its seconds from start to end. Raises UserError where it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"a process of the sweep stopped with exit code {done.returncode}: {last}")
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": seconds}


def _step_seconds(folder: Path) -> float:
    """Seconds a step of a run, from what its metrics say of its speed after the first steps."""
    lines = [values for _, values in read_metrics(folder / "metrics.jsonl") if values["kind"] == "train"]
    per_step = (lines[-1]["epoch"] / lines[-1]["step"]) * _arguments(folder)
    return per_step / median(line["arguments_per_s"] for line in lines[2:] or lines)


def _arguments(folder: Path) -> int:
    """The number of training arguments of a run."""
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    return len(environment["trained_on"])


def main() -> None:
    """A process of the sweep: all its learning rates together, or one as `jaxvalues train` does."""
    kind, file, folder, *values = sys.argv[1:]
    overrides = [[f"optimizer.learning_rate={value}", f"output={Path(folder) / value}"] for value in values]
    configs = [load_config(Path(file), words) for words in overrides]
    console = RunConsole(Console(file=io.StringIO()), brief=True)
    if kind == "alone":
        from jaxvalues.run.train import train

        (config,) = configs
        train(config, console.console)
    else:
        start_process(configs[0], console.console)
        for found in train_together(configs, [console] * len(configs)):
            if isinstance(found, Exception):
                raise found
    dtype = load_config(configs[0].folder / "config.yaml").model.dtype
    print(json.dumps({"dtype": dtype, "peak_bytes": peak_process_bytes()}))


if __name__ == "__main__":
    main()
