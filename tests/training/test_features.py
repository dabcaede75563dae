"""Features of frozen layers, computed once: the same losses and logits as computing them at every step."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
import tiny

from jaxvalues.data.batches import Tokens
from jaxvalues.errors import ConfigError
from jaxvalues.run.base import Base
from jaxvalues.run.prediction import likelihood_logits, with_features
from jaxvalues.run.state import initial_state, initial_weights
from jaxvalues.run.system import Weights
from jaxvalues.training.step import TrainState

DEBERTA = {
    "model_type": "deberta-v2", "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128,
    "max_position_embeddings": 64, "position_buckets": 8, "relative_attention": True, "share_att_key": True,
    "norm_rel_ebd": "layer_norm", "pos_att_type": "p2c|c2p", "position_biased_input": False, "type_vocab_size": 0,
    "conv_kernel_size": 3,
}  # fmt: skip
NETWORKS = {"roberta": tiny.ROBERTA, "deberta-v2 with a convolution": DEBERTA}


def make(network: dict[str, Any], method: str, reuse: bool, scan: bool = False, below: bool = False) -> tiny.Run:
    """Three layers of which the lower two are frozen (all of them for `head`), with dropout in what trains."""
    tuning = {"method": method, "dropout_below": below, "reuse_features": reuse}
    if method == "last_layers":
        tuning["layers"] = 1
    model = {"config": {**network, "num_hidden_layers": 3}, "scan": scan}
    run = tiny.Run(tiny.config({"tuning": tuning, "model": model, "formulation": {"pooling": {"over": "mean"}}}))
    run.tokens = Tokens(run.tokens.ids[:40], run.tokens.labels[:40])
    run.batches = dataclasses.replace(run.batches, tokens=run.tokens)
    return run


def losses(run: tiny.Run, params: Any, steps: int = 3) -> tuple[list[float], np.ndarray]:
    """Losses of some steps from given parameters, and the logits of the training split after them."""
    run.frozen, trainable = params
    run.state = initial_state(run.system, jax.tree.map(np.copy, trainable))
    values = [run.step(batch)["loss"] for batch in first(run, steps)]
    return values, likelihood_logits(run.system, Weights(run.frozen, run.state.trainable), run.tokens)


def first(run: tiny.Run, steps: int) -> list[dict[str, np.ndarray]]:
    stream = run.batches.starting_at(0)
    return [next(stream) for _ in range(steps)]


def with_kept_features(run: tiny.Run, params: Any) -> tiny.Run:
    frozen, trainable = params
    tokens = with_features(run.system, Weights(frozen, trainable), run.tokens)
    run.batches = dataclasses.replace(run.batches, tokens=tokens)
    return run


@pytest.mark.slow
@pytest.mark.main_cases("deberta-v2 with a convolution-*")
@pytest.mark.parametrize(
    ("network", "method", "scan"),
    [
        ("roberta", "last_layers", False),
        ("roberta", "head", False),
        ("deberta-v2 with a convolution", "last_layers", True),
    ],
)
def test_the_same_losses_and_logits_as_computing_them_anew(
    network: str, method: str, scan: bool, quick_compiles: None
) -> None:
    again, once = (make(NETWORKS[network], method, reuse, scan) for reuse in (False, True))
    params = jax.tree.map(np.asarray, initial_weights(again.system, Base({}, None, "random"), 0))
    expected, expected_logits = losses(again, params)
    got, logits = losses(with_kept_features(once, params), params)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(logits, expected_logits, atol=1e-5)
    assert len(set(expected)) == 3
    assert len(once.system.feature_step) == len(once.system.train_step) == 1
    assert next(iter(once.system.train_step.compiled)) == (16, 40, 64)  # it saw features, and no ids


@pytest.mark.exhaustive
def test_dropout_in_the_frozen_layers_makes_every_step_another_so_nothing_is_kept(quick_compiles: None) -> None:
    run = make(tiny.ROBERTA, "last_layers", False, below=True)
    assert not run.system.network.reuses_features
    assert run.system.feature_step is None
    assert with_features(run.system, Weights({}, {}), run.tokens) is run.tokens
    quiet, noisy = (
        make(tiny.ROBERTA, "last_layers", False, below=below).system.network.module.encoder for below in (False, True)
    )
    params = jax.jit(noisy.init)(jax.random.key(0), *[np.ones((2, 8), np.int32)] * 2)

    def below(encoder: Any, seed: int) -> np.ndarray:
        rngs = {"dropout": jax.random.key(seed)}
        ones = np.ones((2, 8), np.int32)
        return np.asarray(encoder.apply(params, ones, ones, layers=(2,), deterministic=False, rngs=rngs)[0])

    np.testing.assert_array_equal(below(quiet, 0), below(quiet, 1))
    assert np.abs(below(noisy, 0) - below(noisy, 1)).max() > 1e-3


def test_pooling_below_what_is_kept_is_an_error_or_recomputed() -> None:
    def network(reuse: bool | str) -> Any:
        tuning = {"method": "last_layers", "layers": 1, "dropout_below": False, "reuse_features": reuse}
        pooling = {"pooling": {"layers": [0, -1]}}
        return tiny.system(tiny.config({"tuning": tuning, "formulation": pooling})).network

    assert not network("auto").reuses_features
    with pytest.raises(ConfigError, match="hidden state 0 is pooled, but only the output of layer 1"):
        network(True)


@pytest.mark.slow
def test_state_is_only_what_trains(quick_compiles: None) -> None:
    run = make(tiny.ROBERTA, "head", True)
    assert isinstance(run.state, TrainState)
    assert run.state.trainable.keys() == {"head"}
