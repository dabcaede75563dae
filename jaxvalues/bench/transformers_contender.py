"""The peer for generating text: `generate` of transformers on torch, greedy, with its own cache."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from jaxvalues.bench.task import Task
from jaxvalues.bench.torch_contender import TorchContender
from jaxvalues.formulations import SEQ2SEQ
from jaxvalues.run.base import find_base


class TransformersContender(TorchContender):
    """See `Contender`. A step reads a batch of prompts and generates `Task.new_tokens` after each."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.options = {
            **{name: tensor.to(self.device).long() for name, tensor in self.batch.items()},
            "max_new_tokens": task.new_tokens,
            "do_sample": False,
            "pad_token_id": 0,
        }
        self.model.generation_config.eos_token_id = None

    def _make_model(self) -> torch.nn.Module:
        dtype, settings = getattr(torch, self.task.dtype), dict(self.task.hf_config)
        kind = "Seq2SeqLM" if settings["model_type"] in SEQ2SEQ else "CausalLM"
        auto = getattr(transformers, f"AutoModelFor{kind}")
        base = find_base(self.config.model, self.config.seed)
        if base.folder is not None:
            return auto.from_pretrained(base.folder, dtype=dtype)
        return auto.from_config(transformers.AutoConfig.for_model(settings.pop("model_type"), **settings), dtype=dtype)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "settings": f"{self.model.config._attn_implementation} attention, generate"}

    def _infer(self) -> torch.Tensor:
        with torch.inference_mode():
            return self.model.generate(**self.options)
