"""Every network on a mesh that splits its weights: the loss and the gradients of one device."""

from __future__ import annotations

from typing import Any

import chex
import jax
import numpy as np
import pytest
import tiny

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
LORA = {"tuning": {"method": "lora", "rank": 4}}
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


def first_step(config: Config, mesh: Any = None) -> tuple[float, Any]:
    """The loss, and the gradients of each layer: a tenth of them are the first moments after one step."""
    run = Start(config, mesh)
    metrics = run.step(next(run.batches.starting_at(0)))
    return metrics["loss"], ungroup(jax.device_get(run.state.optimizer.mu))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_are_those_of_one_device(name: str) -> None:
    loss, grads = first_step(CASES[name])
    split_loss, split_grads = first_step(CASES[name], make_mesh(MESH))
    np.testing.assert_allclose(split_loss, loss, rtol=1e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads))
    chex.assert_trees_all_close(split_grads, grads, rtol=1e-5, atol=1e-5 * largest)
