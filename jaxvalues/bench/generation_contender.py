"""The contender jaxvalues for generating text: the network of a run as a language model."""

from __future__ import annotations

import time
from typing import Any

from jaxvalues.bench.jaxvalues_contender import JaxvaluesContender
from jaxvalues.bench.task import Task
from jaxvalues.generation import LanguageModel
from jaxvalues.tuning import Bound


class GenerationContender(JaxvaluesContender):
    """See `Contender`. A step reads a batch of prompts and generates `Task.new_tokens` after each."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        bound: Bound = self.system.network.tuning.bind(self.frozen, self.trainable)
        prompts = self.batch["input_ids"]
        self.prompts, self.new = prompts.tolist(), task.new_tokens
        self.model = LanguageModel(self.system.network.module, bound, self.system.tokenizer, (), len(prompts))

    def first(self) -> dict[str, Any]:
        return {"seconds": self.run(1)}

    def run(self, count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            self.model.generate(self.prompts, self.new)
        return (time.perf_counter() - start) / count
