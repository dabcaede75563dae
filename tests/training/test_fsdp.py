"""Every network on meshes that split its weights: the loss and the gradients of one device."""

from __future__ import annotations

import re
from typing import Any

import chex
import jax
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec as P

from jaxvalues.config import Config, MeshConfig
from jaxvalues.models.layers.layout import group, ungroup
from jaxvalues.run.state import initial_state
from jaxvalues.training.sharding import make_mesh, tree_shardings

pytestmark = pytest.mark.usefixtures("quick_compiles")

MESH = MeshConfig(data=2, fsdp=4)
DEBERTA = {**tiny.DEBERTA_V2, "num_hidden_layers": 3}
ROBERTA = {**tiny.ROBERTA, "num_hidden_layers": 3}
LAST = {"method": "last_layers", "layers": 2}
REMAT = {"model": {"remat": True}}
LORA = {"tuning": {"method": "lora", "rank": 4, "lora_dropout": 0.1}}
QUESTIONS = {"training": {"batch_size": 16, "questions_per_step": 16}, "data": {"negatives": 1}}
CASES: dict[str, Config] = {
    "roberta": tiny.config({"model": {"config": ROBERTA}}, tiny.NO_DROPOUT),
    "roberta, dropout, remat": tiny.config({"model": {"config": ROBERTA, "remat": True}}),
    "roberta, last layers": tiny.config(
        {"model": {"config": ROBERTA}, "tuning": {"method": "last_layers", "layers": 2}}
    ),
    "deberta": tiny.config({"model": {"config": DEBERTA}}, tiny.NO_DROPOUT),
    "gpt2": tiny.question_config("answer", "gpt2"),
    "t5": tiny.question_config("answer", "t5", QUESTIONS),
    "t5, remat, lora": tiny.question_config("answer", "t5", QUESTIONS, REMAT, LORA),
}


class Start(tiny.Run):
    """A run that starts with the random weights of one device, whatever the network and the mesh."""

    def restart(self) -> None:
        segments = self.system.segments
        weights = jax.device_get(ungroup(tiny.parts(tiny.system(self.system.config))))
        self.frozen, trainable = (
            jax.device_put(part, tree_shardings(part, self.system.mesh)) for part in group(weights, segments)
        )
        self.state = initial_state(self.system, trainable)


def first_step(config: Config, mesh: Any = None) -> tuple[Start, float, Any]:
    """The run, its loss, and the gradients of each layer: a tenth of them are the first moments after one step."""
    run = Start(config, mesh)
    metrics = run.step(next(run.batches.starting_at(0)))
    return run, metrics["loss"], ungroup(jax.device_get(run.state.optimizer.mu))


@pytest.mark.slow
@pytest.mark.main_cases("roberta, dropout, remat")
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_are_those_of_one_device(name: str) -> None:
    check(CASES[name], MESH)


@pytest.mark.slow
@pytest.mark.main_cases("full")
@pytest.mark.parametrize("method", ["full", "lora"])
def test_tensor_splits_heads_and_any_vocabulary_of_gpt2(method: str) -> None:
    """An odd number of words: the width of their vectors is split instead."""
    odd = {"model": {"config": {**tiny.GPT2, "vocab_size": 2001}, "dropout": 0.0}, "tuning": {"method": method}}
    run = check(tiny.question_config("answer", "gpt2", odd), MeshConfig(data=2, fsdp=2, tensor=2))
    words = run.frozen if method == "lora" else run.state.trainable
    assert words["encoder"]["embeddings"]["word"]["embedding"].sharding.spec == P(None, ("tensor", "fsdp"))
    (compiled,) = run.system.train_step.compiled.values()
    scores = re.findall(r"f32\[4,(\d+),80,80\]", compiled.run.as_text())  # of 4 rows of 80 tokens on a device
    assert set(scores) == {"2"}  # of 4 heads


def check(config: Config, mesh: MeshConfig) -> Start:
    """Compare one step on one device with one on a mesh. Returns the latter's run."""
    _, loss, grads = first_step(config)
    run, split_loss, split_grads = first_step(config, make_mesh(mesh))
    np.testing.assert_allclose(split_loss, loss, rtol=1e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads))
    chex.assert_trees_all_close(split_grads, grads, rtol=1e-5, atol=1e-5 * largest)
    return run
