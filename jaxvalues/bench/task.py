"""What a contender is asked to do, how it is asked, and how much memory its process held."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jaxvalues.training.memory import give_back_freed_memory

TOTAL_STEPS = 1000  # of the learning-rate schedule
GATHER = "jaxvalues-gather"  # the contender that is jaxvalues with gathers in its relative attention
APART = "jaxvalues-apart"  # the contender that is jaxvalues with every question in a row of its own
PEFT = "peft"
UNCOMPILED = ("torch-eager", PEFT)  # contenders without a compiler, whose first step is like any other


@dataclass(frozen=True)
class Task:
    """What a contender is to do, as plain data."""

    work: str  # "train" or "inference"
    config: dict[str, Any]
    hf_config: dict[str, Any]
    tokenizer: str  # folder
    batch: str  # .npz of one batch: input_ids, attention_mask, weights, labels, and what rows ask, if they do
    cache: str  # folder where a compiler may keep its programs
    platform: str  # of the device: "cpu", "gpu", "" as the library chooses
    dtype: str  # of the computation
    words: tuple[int, ...] = ()  # tokens of No and Yes


class Contender(Protocol):
    """One implementation of the task, ready to take steps. Building one loads the model and takes no step."""

    def describe(self) -> dict[str, Any]:
        """Versions, settings (in words), device, platform, dtype, threads, parameters."""
        ...

    def first(self) -> dict[str, Any]:
        """Take the first step: `seconds` in all; `trace_s` and `compile_s` of it where they can be told apart."""
        ...

    def run(self, count: int) -> float:
        """Seconds a step over `count` steps, each from a batch in host memory, the last one's result waited for."""
        ...

    def peak_bytes(self) -> int:
        """Most memory held: of the accelerator, so far; of the process on CPU, since the first step."""
        ...


def peak_process_bytes() -> int:
    """The most memory this process held. Linux' own counter: ru_maxrss there starts with the parent's memory."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """From now on `peak_process_bytes` speaks of what follows, where the system can do that: what building a contender
    took says nothing of its steps."""
    give_back_freed_memory()
    counter = Path("/proc/self/clear_refs")
    if counter.exists():
        counter.write_text("5")  # resets VmHWM (proc(5))
