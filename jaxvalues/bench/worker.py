"""One contender in its own process, so that libraries do not share thread pools, memory or imports.

The parent writes one JSON command per line and reads one JSON answer per line. An idle contender waits on the pipe and
uses no CPU time, so contenders can take turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from typing import Any

from jaxvalues.bench.task import APART, BF16, GATHER, GENERATION, PEFT, TRANSFORMERS, Contender, Task
from jaxvalues.errors import UserError
from jaxvalues.training.memory import reset_peak_memory


class Worker:
    """The parent's side: starts contender `name` on `task` and forwards the methods of `Contender`.

    Raises UserError with the message of the contender, or with the last line that it wrote before it died.
    """

    def __init__(self, name: str, task: Task) -> None:
        self.name = name
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)
        # Two contenders share one accelerator, so neither may take all of its memory in advance.
        env = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TORCHINDUCTOR_CACHE_DIR": task.cache}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jaxvalues.bench.worker", name, json.dumps(asdict(task))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=env,
        )

    def describe(self) -> dict[str, Any]:
        return self._ask("describe")

    def first(self) -> dict[str, Any]:
        return self._ask("first")

    def run(self, count: int) -> float:
        return self._ask("run", count)

    def peak_bytes(self) -> int:
        return self._ask("peak_bytes")

    def _ask(self, method: str, *args: Any) -> Any:
        try:
            self.process.stdin.write(json.dumps([method, args]) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.process.wait()
            self.errors.seek(0)
            lines = self.errors.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise UserError(f"{self.name} stopped with exit code {self.process.returncode}: {lines[-1]}")
        content = json.loads(answer)
        if "error" in content:
            raise UserError(f"{self.name}: {content['error']}")
        return content["answer"]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the process; it has nothing to save."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            stream.close()


def build(name: str, task: Task) -> Contender:
    """The contender `name`. Only its own library is imported."""
    if task.work in GENERATION:
        if name == TRANSFORMERS:
            from jaxvalues.bench.transformers_contender import TransformersContender

            return TransformersContender(task)
        from jaxvalues.bench.generation_contender import GenerationContender

        return GenerationContender(task)
    if name in ("jaxvalues", APART, GATHER):
        from jaxvalues.bench.jaxvalues_contender import JaxvaluesContender

        return JaxvaluesContender(task, gathers=name == GATHER)
    if name.endswith(BF16):
        name, task = name.removesuffix(BF16), replace(task, dtype="bfloat16")
    if name == PEFT:
        from jaxvalues.bench.peft_contender import PeftContender

        return PeftContender(task)
    from jaxvalues.bench.torch_contender import TorchContender

    return TorchContender(task, compiled=name == "torch-compile")


def main() -> None:
    """The child's side: build the contender, then answer commands until the pipe closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries goes to stderr, so that stdout has answers only
    name, task = sys.argv[1], Task(**json.loads(sys.argv[2]))
    contender: Contender | None = None
    for line in sys.stdin:
        method, args = json.loads(line)
        try:
            contender = contender or build(name, task)
            content = {"answer": getattr(contender, method)(*args)}
            if method == "first":
                reset_peak_memory()
        except UserError as error:
            content = {"error": str(error)}
        answers.write(json.dumps(content) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
