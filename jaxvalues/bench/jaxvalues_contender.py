"""The contender jaxvalues: the compiled steps of a run, built by the code that a run uses."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from jaxvalues.bench.task import TOTAL_STEPS, Task
from jaxvalues.config import parse_config
from jaxvalues.data.batches import inputs_shape, model_inputs
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.tokenizers import load_tokenizer
from jaxvalues.errors import UserError
from jaxvalues.run.base import find_base
from jaxvalues.run.held import hold_all, hold_frozen
from jaxvalues.run.network import count
from jaxvalues.run.state import initial_state, initial_weights
from jaxvalues.run.system import System
from jaxvalues.training.compilation import enable_cache
from jaxvalues.training.losses import make_loss_hyperparameters
from jaxvalues.training.memory import keep_freed_memory, peak_bytes
from jaxvalues.training.optimizer import make_hyperparameters
from jaxvalues.training.sharding import make_mesh, place_batch


class JaxvaluesContender:
    """See `Contender`. `gathers` computes relative attention with gathers, which no run does (see `DebertaEncoder`)."""

    def __init__(self, task: Task, gathers: bool = False) -> None:
        keep_freed_memory()
        enable_cache(task.cache)
        config = parse_config(task.config)
        self.gathers, self.work, self.batch = gathers, task.work, dict(np.load(task.batch))
        self.system = System(config, task.hf_config, load_tokenizer(task.tokenizer), make_mesh(config.mesh))
        if gathers:
            module = self.system.network.module
            module = module.clone(encoder=module.encoder.clone(form="gather"))
            self.system.network = replace(self.system.network, module=module)
        weights = initial_weights(self.system, find_base(config.model, config.seed), config.seed, held=True)
        weights = (hold_frozen if self.work == "train" else hold_all)(self.system, weights)
        self.frozen, self.trainable = weights
        del weights
        self.parameters = count((self.frozen, self.trainable))
        if self.work == "train":
            self.state = initial_state(self.system, self.trainable)
            del self.trainable  # the state owns these arrays, and every step donates them
            loss = make_loss_hyperparameters(config.loss, np.eye(len(CATEGORIES)))  # the numbers do not affect the time
            self.hyper = make_hyperparameters(config.optimizer, TOTAL_STEPS, config.seed, loss=loss)
        # Inference splits a large batch into chunks of eval_batch_size, as training splits it into micro-batches.
        rows, training = len(self.batch["input_ids"]), config.training
        self.size = rows // training.accumulation if self.work == "train" else min(rows, training.eval_batch_size)

    def describe(self) -> dict[str, Any]:
        devices = jax.devices()
        segments = self.system.segments  # {stack: segments} for an encoder-decoder
        stacks = segments.values() if isinstance(segments, Mapping) else (segments,)
        scanned = any(first < last for stack in stacks for first, last in stack)
        return {
            "versions": {name: version(name) for name in ("jaxvalues", "jax", "jaxlib", "flax", "optax")},
            "settings": f"layers {'scanned' if scanned else 'unrolled'}{', gathering' if self.gathers else ''}"
            + (f", {self.size} rows of {len(self.batch['input_ids'])} at a time" if self._chunks > 1 else ""),
            "device": f"{len(devices)} × {devices[0].device_kind}",
            "platform": devices[0].platform,
            "dtype": np.dtype(self.system.network.dtype).name,
            "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "parameters": self.parameters,
        }

    def first(self) -> dict[str, Any]:
        start = time.perf_counter()
        self._finish(self._step())
        seconds = time.perf_counter() - start
        executables = self.system.train_step if self.work == "train" else self.system.eval_step
        (compiled,) = executables.compiled.values()
        return {
            "seconds": seconds,
            "trace_s": compiled.trace_s,
            "compile_s": compiled.compile_s,
            "from_cache": compiled.from_cache,
        }

    def run(self, count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            result = self._step()
        self._finish(result)
        return (time.perf_counter() - start) / count

    def peak_bytes(self) -> int:
        return peak_bytes()

    @property
    def _chunks(self) -> int:
        return len(self.batch["input_ids"]) // self.size

    def _step(self) -> list[jax.Array]:
        system = self.system
        if self.work == "train":
            batch = place_batch(self.batch, system.mesh)
            self.state, metrics = system.train_step(
                inputs_shape(self.batch), self.state, self.frozen, batch, self.hyper
            )
            return [metrics["loss"]]
        results = []
        for start in range(0, self.size * self._chunks, self.size):
            inputs = {name: rows[start : start + self.size] for name, rows in model_inputs(self.batch).items()}
            placed = place_batch(inputs, system.mesh)
            results.append(system.eval_step(inputs_shape(inputs), self.trainable, self.frozen, placed))
        return results

    def _finish(self, results: list[jax.Array]) -> None:
        if self.work == "train":
            jax.block_until_ready(self.state)
        if not all(np.isfinite(np.asarray(result)).all() for result in results):
            raise UserError("the result of a step is not finite, so its time means nothing")
