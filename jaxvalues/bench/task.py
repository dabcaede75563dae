"""The task of a contender, and the interface of contenders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

TOTAL_STEPS = 1000  # of the learning-rate schedule
GATHER = "jaxvalues-gather"  # jaxvalues, with relative attention computed by gathers
APART = "jaxvalues-apart"  # jaxvalues, with one question per row instead of branches
PEFT = "peft"
BF16 = "-bf16"  # ends the name of a peer that computes in bfloat16, whatever jaxvalues computes in
PEFTS = (PEFT, PEFT + BF16)
TRANSFORMERS = "transformers"  # its `generate`
GENERATION = ("prefill", "generate")
"""The work of generating text: reading prompts and choosing one token; and generating several."""
NOT_COMPILED = ("torch-eager", "torch" + BF16, *PEFTS, TRANSFORMERS)  # contenders whose first step compiles nothing


@dataclass(frozen=True)
class Task:
    """The work of a contender, as plain data that JSON can hold."""

    work: str  # "train", "inference", or one of GENERATION
    config: dict[str, Any]
    hf_config: dict[str, Any]
    tokenizer: str  # folder
    batch: str  # .npz of one batch: input_ids, attention_mask, weights, labels, and questions if any
    cache: str  # folder for the compile cache
    platform: str  # of the device: "cpu" or "gpu"; "" is the default of the library
    dtype: str  # of the computation
    words: tuple[int, ...] = ()  # token ids of No and Yes
    new_tokens: int = 0  # that are generated after each row


class Contender(Protocol):
    """One implementation of the task. Building it loads the model and runs no step."""

    def describe(self) -> dict[str, Any]:
        """Versions, settings (in words), device, platform, dtype, number of threads and of parameters."""
        ...

    def first(self) -> dict[str, Any]:
        """Run the first step. Returns its `seconds`, and its `trace_s` and `compile_s` if known."""
        ...

    def run(self, count: int) -> float:
        """Run `count` steps, each from a batch in host memory, and wait for the last. Returns seconds per step."""
        ...

    def peak_bytes(self) -> int:
        """Peak memory in bytes: of the accelerator since the start, or on CPU of the process since the first step."""
        ...
