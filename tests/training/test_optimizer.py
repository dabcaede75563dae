"""AdamW against optax's own, the layer-wise factors, and the schedules."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvalues.config import LossConfig, OptimizerConfig
from jaxvalues.models.layers.layout import group, ungroup
from jaxvalues.training.losses import make_loss_hyperparameters
from jaxvalues.training.optimizer import AdamW, decay_mask, learning_rate_at, make_hyperparameters

LAYERS = 4


def parameters() -> dict[str, Any]:
    """A small tree with the paths of a network of 4 layers, unrolled."""
    random = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    def layer() -> dict[str, Any]:
        return {"mlp": {"up": {"kernel": draw(4, 6), "bias": draw(6)}}, "mlp_norm": {"scale": draw(4), "bias": draw(4)}}

    return {
        "encoder": {
            "embeddings": {"word": {"embedding": draw(9, 4)}, "norm": {"scale": draw(4), "bias": draw(4)}},
            "layers": {str(i): layer() for i in range(LAYERS)},
        },
        "head": {"kernel": draw(4, 20), "bias": draw(20)},
    }


@pytest.mark.slow
@pytest.mark.parametrize("clip", [None, 0.5])
def test_it_is_optaxs_adamw(clip: float | None) -> None:
    """On a fixed problem, with gradients that start far above the clipping norm and fall below it."""
    config = OptimizerConfig(
        learning_rate=0.05, schedule="constant", warmup=0, weight_decay=0.1, b1=0.8, b2=0.95, eps=1e-6, clip_norm=clip
    )
    params = theirs = parameters()
    target = jax.tree.map(lambda x: 0.3 * jnp.sin(x), params)

    @jax.jit
    @jax.grad
    def gradient(p: Any) -> jax.Array:
        return 0.02 * sum(jnp.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (p, target)), strict=True))

    decayed = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in ("kernel", "embedding"), params)
    adamw = optax.adamw(0.05, b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.1, mask=decayed)
    reference = optax.chain(optax.clip_by_global_norm(clip), adamw) if clip else adamw
    ours, hyper = AdamW(config, LAYERS), make_hyperparameters(config, 100, 0)
    state, their_state = ours.init(params), reference.init(theirs)
    update, their_update, norms = jax.jit(ours.update), jax.jit(reference.update), []
    for step in range(40):
        params, state, metrics = update(gradient(params), state, params, step, hyper)
        updates, their_state = their_update(gradient(theirs), their_state, theirs)
        theirs = optax.apply_updates(theirs, updates)
        norms.append(float(metrics["grad_norm"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, theirs)
    assert norms[0] > 0.5 > norms[-1]
    assert float(metrics["learning_rate"]) == np.float32(0.05)


def test_the_reported_norm_is_the_one_before_clipping() -> None:
    config = OptimizerConfig(clip_norm=0.1)
    grads = {"head": {"kernel": jnp.full((2, 2), 3.0)}}
    *_, metrics = AdamW(config, 1).update(
        grads, AdamW(config, 1).init(grads), grads, 0, make_hyperparameters(config, 10, 0)
    )
    assert float(metrics["grad_norm"]) == 6.0


def test_biases_and_norms_are_not_decayed() -> None:
    mask = decay_mask(parameters())
    layer = mask["encoder"]["layers"]["2"]
    assert (layer["mlp"]["up"], layer["mlp_norm"]) == ({"kernel": 1, "bias": 0}, {"scale": 0, "bias": 0})
    assert mask["encoder"]["embeddings"] == {"word": {"embedding": 1}, "norm": {"scale": 0, "bias": 0}}
    assert mask["head"] == {"kernel": 1, "bias": 0}


@pytest.mark.parametrize("segments", [((0, 3),), ((0, 1), (2, 3)), ((0, 2), (3, 3)), tuple((i, i) for i in range(4))])
def test_layer_l_moves_by_d_to_the_number_of_layers_above_it(segments: tuple[tuple[int, int], ...]) -> None:
    """Adam's first step has size η wherever the gradient is not 0, so the move is η times the layer's factor."""
    d, rate = 0.8, 0.01
    config = OptimizerConfig(
        learning_rate=rate, schedule="constant", warmup=0, layer_decay=d, weight_decay=0, clip_norm=None
    )
    optimizer, params = AdamW(config, LAYERS), group(parameters(), segments)
    grads = jax.tree.map(jnp.ones_like, params)
    after, *_ = jax.jit(optimizer.update)(grads, optimizer.init(params), params, 0, make_hyperparameters(config, 10, 0))
    moved = ungroup(jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), params, after))

    def check(tree: Any, factor: float) -> None:
        jax.tree.map(lambda x: np.testing.assert_allclose(x, rate * factor, rtol=1e-3), tree)

    check(moved["head"], 1)
    for layer in range(LAYERS):
        check(moved["encoder"]["layers"][str(layer)], d ** (LAYERS - 1 - layer))
    check(moved["encoder"]["embeddings"], d**LAYERS)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [  # of 100 steps 10 warm up; at 10 the descent begins, at 55 it is half way, at 100 it would be over
        ("cosine", {0: 0.1, 4: 0.5, 9: 1, 10: 1, 32.5: 0.5 + 0.5**1.5, 55: 0.5, 99: 0.000305, 100: 0, 130: 0}),
        ("linear", {0: 0.1, 4: 0.5, 9: 1, 10: 1, 32.5: 0.75, 55: 0.5, 99: 1 / 90, 100: 0, 130: 0}),
        ("constant", {0: 0.1, 4: 0.5, 9: 1, 10: 1, 55: 1, 100: 1}),
    ],
)
def test_the_schedules_at_their_key_points(schedule: str, expected: dict[float, float]) -> None:
    hyper = make_hyperparameters(OptimizerConfig(learning_rate=2.0, warmup=0.1, schedule=schedule), 100, 0)
    rates = [float(learning_rate_at(step, hyper, schedule)) for step in expected]
    np.testing.assert_allclose(rates, [2 * value for value in expected.values()], atol=1e-5)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    hyper = make_hyperparameters(OptimizerConfig(learning_rate=1.0, warmup=0), 1, 0)
    assert float(learning_rate_at(0, hyper, "cosine")) == 1.0


def test_warm_up_is_whole_steps_rounded_up_but_not_by_rounding_noise() -> None:
    def warmup_steps(share: float, total: int) -> float:
        return float(make_hyperparameters(OptimizerConfig(warmup=share), total, 0).warmup_steps)

    assert [warmup_steps(0.1, 101), warmup_steps(0.1, 100), warmup_steps(0, 100)] == [11, 10, 0]
    assert 0.07 * 100 > 7
    assert warmup_steps(0.07, 100) == 7


def test_a_later_stage_counts_from_its_own_first_step() -> None:
    config = OptimizerConfig(learning_rate=2.0, warmup=0.1)
    alone, later = make_hyperparameters(config, 100, 0), make_hyperparameters(config, 100, 0, first_step=40)
    for step in (0, 9, 50, 99):
        np.testing.assert_allclose(
            learning_rate_at(step, alone, "cosine"), learning_rate_at(step + 40, later, "cosine"), rtol=1e-6
        )


def test_no_clipping_is_a_limit_of_infinity_and_every_number_is_traced() -> None:
    loss = make_loss_hyperparameters(LossConfig(), np.eye(3, 20))
    hyper = make_hyperparameters(OptimizerConfig(clip_norm=None), 10, seed=2**32 - 1, loss=loss)
    assert np.isinf(hyper.clip_norm)
    assert {np.asarray(value).dtype.name for value in jax.tree.leaves(hyper)} == {"float32", "uint32"}
    assert int(hyper.seed) == 2**32 - 1
