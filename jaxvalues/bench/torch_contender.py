"""The peer for classifiers: transformers' model of the same shape on torch, eager or compiled.

Batch, dropout rates, decay groups, clipping and schedule are the same. Attention is scaled-dot-product attention if
transformers has it for the model (DeBERTa is eager), AdamW is fused, bfloat16 uses autocast, and inference runs in
inference mode.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
import transformers

from jaxvalues.bench.task import TOTAL_STEPS, Task
from jaxvalues.config import parse_config
from jaxvalues.errors import UserError
from jaxvalues.training.memory import peak_process_bytes


class TorchContender:
    """See `Contender`."""

    def __init__(self, task: Task, compiled: bool = False) -> None:
        if task.platform not in ("cpu", "gpu"):
            raise UserError(f"the torch peers run on cpu and gpu, not on {task.platform}")
        if task.platform == "gpu" and not torch.cuda.is_available():
            raise UserError("jax finds a gpu but torch does not: install torch with CUDA, or set JAX_PLATFORMS=cpu")
        self.task, self.config, self.work, self.dtype = task, parse_config(task.config), task.work, task.dtype
        self.device = torch.device("cuda" if task.platform == "gpu" else "cpu")
        self.batch = {name: torch.from_numpy(array) for name, array in np.load(task.batch).items()}
        torch.manual_seed(self.config.seed)
        torch.set_float32_matmul_precision("high")  # TF32 on GPU, as is jax's default
        self.model = self._make_model().to(self.device)
        self.model.train(self.work == "train")
        if self.work == "train":
            self.optimizer, self.schedule = self._make_optimizer()
        self.call = torch.compile(self.model) if compiled else self.model

    def _make_model(self) -> torch.nn.Module:
        return make_model(self.task.hf_config, self.config.model.dropout)

    def _make_optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        settings = self.config.optimizer
        training = [p for p in self.model.parameters() if p.requires_grad]
        decayed = [p for p in training if p.ndim > 1]  # without biases and layer norms
        others = [p for p in training if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=settings.learning_rate,
            betas=(settings.b1, settings.b2),
            eps=settings.eps,
            fused=True,
        )
        warmup = round(settings.warmup * TOTAL_STEPS)
        return optimizer, transformers.get_cosine_schedule_with_warmup(optimizer, warmup, TOTAL_STEPS)

    def describe(self) -> dict[str, Any]:
        gpu = self.device.type == "cuda"
        return {
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "settings": f"{self.model.config._attn_implementation} attention, fused AdamW",
            "device": torch.cuda.get_device_name() if gpu else "cpu",
            "platform": "gpu" if gpu else "cpu",
            "dtype": self.dtype,
            "threads": torch.get_num_threads(),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
        }

    def first(self) -> dict[str, Any]:
        return {"seconds": self.run(1)}

    def run(self, count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            result = self._train() if self.work == "train" else self._infer()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / count
        if not torch.isfinite(result).all():
            raise UserError("the result of a step is not finite, so its time means nothing")
        return seconds

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else peak_process_bytes()

    def _logits(self) -> torch.Tensor:
        batch = {name: self.batch[name].to(self.device) for name in ("input_ids", "attention_mask")}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            return self._outputs(batch).float()

    def _outputs(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.call(**batch).logits

    def _infer(self) -> torch.Tensor:
        with torch.inference_mode():
            return self._logits()

    def _train(self) -> torch.Tensor:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            self._logits(), self.batch["labels"].to(self.device)
        )
        loss.backward()
        if self.config.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def make_model(hf_config: dict[str, Any], dropout: float | None) -> torch.nn.Module:
    """transformers' sequence classifier with random weights and 20 labels."""
    rates = {} if dropout is None else {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    settings = {**hf_config, **rates, "num_labels": 20}
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    return transformers.AutoModelForSequenceClassification.from_config(config)
