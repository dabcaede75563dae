"""The training step where rows ask: micro-batches, meshes, and losses that know which category is asked about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny

from jaxvalues.config import MeshConfig
from jaxvalues.training.sharding import make_mesh

TUNING = {
    "gpt2": {"method": "prompt", "length": 3},
    "t5": {"method": "prompt", "length": 3, "sides": ["encoder", "decoder"]},
}
LAYER = {"gpt2": {**tiny.GPT2, "n_layer": 1}, "t5": {**tiny.T5, "num_layers": 1}}
BALANCED = {"loss": {"kind": "class_balanced_negative_tolerant"}}
STEPS = 2


def make(network: str, *changes: dict[str, Any], mesh: Any = None) -> tiny.Run:
    """Prompt tuning on 8 rows a step: arguments with 20 branches on GPT-2, drawn questions on T5."""
    model = {"config": LAYER[network], "dropout": 0.0}
    plain = {"optimizer": {"clip_norm": None, "eps": 1e-3}, "training": {"batch_size": 8}}
    if network == "t5":
        plain |= {"data": {"negatives": 1.0}, "training": {"questions_per_step": 8}}
    return tiny.Run(
        tiny.question_config("answer", network, {"tuning": TUNING[network], "model": model}, plain, *changes), mesh
    )


@pytest.mark.slow
@pytest.mark.main_cases("gpt2")
@pytest.mark.parametrize("network", TUNING)
def test_micro_batches_and_meshes_change_nothing(network: str) -> None:
    """One device, in two micro-batches, and eight devices; the last rows of the second batch are padding."""
    runs = {
        "whole": make(network, BALANCED),
        "micro-batches": make(network, BALANCED, {"training": {"accumulation": 2}}),
        "eight devices": make(network, BALANCED, mesh=make_mesh(MeshConfig())),
    }
    said, prompts = {}, {}
    for name, run in runs.items():
        stream, said[name] = run.batches.starting_at(0), []
        for real in (8, 5)[:STEPS]:
            batch = next(stream)
            batch["weights"] *= (np.arange(8) < real)[:, None]
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
    other["weights"] = np.repeat((np.arange(8) < 2).astype(np.float32)[:, None], 4, axis=1)
    ours, theirs = apart.step(batch), together.step(other)
    assert apart.hyper.loss.category_weights.std() > 0.1
    for key in ("loss", "positives", "grad_norm"):
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-4, err_msg=key)


WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "all questions": {"training": {"batch_size": 2}},
    "negatives": {"training": {"batch_size": 4}, "data": {"negatives": 0.5}},
    "by question": {"training": {"questions_per_step": 8}},
}


@pytest.mark.slow
@pytest.mark.main_cases("negatives")
@pytest.mark.parametrize("way", WAYS)
def test_loss_and_gradient_of_an_update_are_the_same_whether_questions_branch_or_not(way: str) -> None:
    """And in micro-batches, which the many rows of questions that do not branch may need."""
    long = {"data": {**WAYS[way].get("data", {}), "max_length": 150, "buckets": [150]}}  # truncated alike: not at all
    branches, rows = make("gpt2", BALANCED, WAYS[way], long), make("gpt2", BALANCED, WAYS[way], long)
    micro = make("gpt2", BALANCED, WAYS[way], long, {"training": {**WAYS[way]["training"], "accumulation": 4}})
    apart = replace(rows.system.formulation.question_rows, branches=False)
    tokens = apart.encode(tiny.split().arguments, tiny.split().labels)
    assert branches.tokens.truncated == tokens.truncated == 0
    streams = [
        branches.batches.starting_at(0),
        replace(rows.batches, tokens=tokens).starting_at(0),
        replace(micro.batches, tokens=tokens).starting_at(0),
    ]
    for _ in range(STEPS):
        batches = [next(stream) for stream in streams]
        assert "question_ids" in batches[0]
        assert "question_ids" not in batches[1]
        assert batches[0]["weights"].sum() == batches[1]["weights"].sum() == batches[2]["weights"].sum()
        first, *others = (run.step(batch) for run, batch in zip((branches, rows, micro), batches, strict=True))
        assert first["grad_norm"] > 0
        for other in others:
            for key, value in first.items():
                np.testing.assert_allclose(other[key], value, rtol=1e-3, atol=1e-5, err_msg=key)
    for other in (rows, micro):
        np.testing.assert_allclose(
            other.state.trainable["prompt"]["encoder"], branches.state.trainable["prompt"]["encoder"], atol=1e-4
        )
