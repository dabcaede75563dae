"""The training step where rows ask: micro-batches, meshes, and losses that know which category is asked about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny

from jaxvalues.config import MeshConfig
from jaxvalues.data.batches import TrainingBatches
from jaxvalues.data.subset import sample_pairs
from jaxvalues.training.sharding import make_mesh

TUNING = {
    "gpt2": {"method": "prompt", "length": 3},
    "t5": {"method": "prompt", "length": 3, "sides": ["encoder", "decoder"]},
}
LAYER = {"gpt2": {**tiny.GPT2, "n_layer": 1}, "t5": {**tiny.T5, "num_layers": 1}}
BALANCED = {"loss": {"kind": "class_balanced_negative_tolerant"}}
STEPS = 2


def make(network: str, *changes: dict[str, Any], mesh: Any = None) -> tiny.Run:
    """Prompt tuning on 8 rows a step: arguments with 20 branches on GPT-2, drawn pairs on T5."""
    model = {"config": LAYER[network], "dropout": 0.0}
    plain = {"optimizer": {"clip_norm": None, "eps": 1e-3}, "training": {"batch_size": 8}}
    run = tiny.Run(
        tiny.question_config("answer", network, {"tuning": TUNING[network], "model": model}, plain, *changes), mesh
    )
    if network == "t5":
        pairs = sample_pairs(tiny.split().labels, 1.0, 0)
        tokens = run.system.formulation.encode(tiny.split().arguments, tiny.split().labels, pairs)
        run.batches = TrainingBatches(tokens, run.batches.buckets, 8, 0, run.system.pad_id)
    return run


@pytest.mark.slow
@pytest.mark.main_cases("gpt2")
@pytest.mark.parametrize("network", TUNING)
def test_micro_batches_and_meshes_change_nothing(network: str) -> None:
    """One device, in two micro-batches, and eight devices; the last rows of the second batch are padding."""
    runs = {
        "whole": make(network, BALANCED),
        "micro-batches": make(network, BALANCED, {"training": {"batch_size": 8, "accumulation": 2}}),
        "eight devices": make(network, BALANCED, mesh=make_mesh(MeshConfig())),
    }
    said, prompts = {}, {}
    for name, run in runs.items():
        stream, said[name] = run.batches.starting_at(0), []
        for real in (8, 5)[:STEPS]:
            batch = next(stream)
            batch["weights"] = (np.arange(8) < real).astype(np.float32)
            said[name].append(run.step(batch))
        prompts[name] = np.concatenate([np.asarray(side) for side in run.state.trainable["prompt"].values()])
    assert said["whole"][0].keys() == {"loss", "positives", "learning_rate", "grad_norm", "prompt_norm"}
    assert said["whole"][0]["grad_norm"] > 0
    for name in ("micro-batches", "eight devices"):
        for ours, theirs in zip(said["whole"], said[name], strict=True):
            for key, value in ours.items():
                np.testing.assert_allclose(theirs[key], value, rtol=2e-4, atol=1e-5, err_msg=f"{key}, {name}")
        np.testing.assert_allclose(prompts[name], prompts["whole"], atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_the_loss_of_a_pair_is_that_of_its_category() -> None:
    """Pairs in rows of their own weigh what they weigh among the 20 of their argument."""
    together, apart = make("gpt2", BALANCED), make("gpt2", BALANCED)
    labels = tiny.split().labels[:2]
    asked = np.repeat([0, 1], 4), np.array([3, 0, 19, 7, 2, 3, 11, 5])
    formulation = together.system.formulation
    rows = formulation.encode(tiny.split().arguments[:2], labels, asked)
    whole = formulation.encode(tiny.split().arguments[:2], labels)
    batch, other = (tiny.batch(together.system, tokens, size) for tokens, size in ((rows, 8), (whole, 8)))
    columns = asked[1].reshape(2, 4)
    for name in ("categories", "question_ids", "question_mask", "labels"):
        some = other[name][:2]
        few = np.take_along_axis(some, columns.reshape(2, 4, *[1] * (some.ndim - 2)), axis=1)
        other[name] = np.concatenate([few, np.repeat(few[:1], 6, axis=0)])
    other["weights"] = (np.arange(8) < 2).astype(np.float32)
    ours, theirs = apart.step(batch), together.step(other)
    assert apart.hyper.loss.category_weights.std() > 0.1
    for key in ("loss", "positives", "grad_norm"):
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-4, err_msg=key)
