"""Small real runs for process-level tests: their config, processes that run them, and interruption of these."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from jaxvalues.cli import main

ROOT = Path(__file__).parents[1]

# One batch shape, so one compile; evaluations and checkpoints in the middle of epochs; every step in metrics.jsonl.
SMALL = f"""
base: {ROOT / "configs/quickstart.yaml"}
data: {{max_length: 48, buckets: [48]}}
model:
  dropout: 0.1
  config:
    hidden_size: 64
    num_hidden_layers: 2
    num_attention_heads: 2
    intermediate_size: 128
    initializer_range: 0.1
  train_tokenizer: {{vocab_size: 500}}
formulation: {{pooling: {{over: mean, layers: [0, -1]}}}}
training: {{epochs: 2, batch_size: 32, evaluate_every: 4, checkpoint_every: 4, log_every: 1}}
optimizer: {{learning_rate: 5.0e-3}}
logging: {{tensorboard: false}}
"""

# Runs the command line and sends it a signal: argv is WHERE STEP SIGNAL, then the arguments of the command. Steps and
# evaluation batches take STEP_SECONDS longer, as processes need a second or two to agree on where to stop.
INTERRUPTED = """
import os, signal, sys, threading, time
from jaxvalues.training import checkpoints, compilation, loop

where, at, number = sys.argv[1], int(sys.argv[2]), getattr(signal, sys.argv[3])
del sys.argv[1:4]
now = {"step": 0}
pause = float(os.environ.get("STEP_SECONDS", 0))

def strike():
    if not now.get("struck"):
        os.kill(os.getpid(), number)
    now["struck"] = True

def add(self, step, *rest, original=loop.Meter.add):
    original(self, step, *rest)
    now["step"] = step
    time.sleep(pause)
    if where in ("training", "twice") and step == at:
        strike()
        if where == "twice":
            os.kill(os.getpid(), number)

def compile_once(name, *rest, original=compilation.compile_once):
    if where == "compile" and name == "train":
        threading.Timer(0.5, strike).start()
    return original(name, *rest)

def call(self, *rest, original=compilation.Executables.__call__):
    if self.name == "evaluate" and now["step"] == at:
        time.sleep(pause)
        if where == "evaluation":
            strike()
    return original(self, *rest)

def save(self, step, *rest, original=checkpoints.Checkpoints.save):
    original(self, step, *rest)  # it is being written in the background now
    if where == "save" and self.folder.name == "resume" and step == at:
        strike()

loop.Meter.add, compilation.compile_once = add, compile_once
compilation.Executables.__call__, checkpoints.Checkpoints.save = call, save
from jaxvalues.cli import main
main()
"""


def environment(**more: str) -> dict[str, str]:
    """Environment variables: one device, no network, fast compilation with few optimizations."""
    plain = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "HF_HUB_OFFLINE": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return {**os.environ, **plain, **more}


def start(*words: object, interrupt: tuple[str, int, str] | None = None, **more: str) -> subprocess.Popen[str]:
    """Start `jaxvalues WORDS` in a process, interrupted at (where, step, signal)."""
    program = ["-m", "jaxvalues"] if interrupt is None else ["-c", INTERRUPTED, *map(str, interrupt)]
    return subprocess.Popen(
        [sys.executable, *program, *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more),
    )  # fmt: skip


def finish(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err


def run(*words: object, interrupt: tuple[str, int, str] | None = None) -> tuple[int, str, str]:
    """`start` and `finish`."""
    return finish(start(*words, interrupt=interrupt))


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without speeds."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "arguments_per_s"} for line in lines]


def results(folder: Path) -> dict[str, bytes]:
    """The bytes of the result files of a finished run."""
    names = ("predictions-test.tsv", "probabilities-test.tsv", "thresholds.json", "scores.json")
    return {name: (folder / name).read_bytes() for name in names}


def command(*words: object) -> tuple[int, str, str]:
    """As `run`, but in this process. Exceptions other than SystemExit are not caught."""
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["jaxvalues", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        return int(end.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = argv
    raise AssertionError("the command line did not exit")
