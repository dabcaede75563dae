"""The contrastive loss: the formula of the study, rows that take no part, and the global batch of a mesh."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxvalues.config import MeshConfig
from jaxvalues.data.batches import model_inputs
from jaxvalues.training.contrastive import affinity_for, contrastive_loss, label_affinity
from jaxvalues.training.sharding import make_mesh, place_batch
from jaxvalues.tuning import Bound

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(10, 16)).astype(np.float32)
Y = (RANDOM.random((10, 20)) < 0.15).astype(np.float32)
Y[3] = 0  # no category at all, so no partner
ALL = np.ones(10, np.float32)


def formula(x: np.ndarray, y: np.ndarray, temperature: float) -> float:
    """REFERENCE: arXiv 2403.09720, in loops."""
    x = x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True)
    losses = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        total = sum(y[i] @ y[k] for k in others)
        if total == 0:
            continue
        e = {j: np.exp(x[i] @ x[j] / temperature) for j in others}
        w = {j: y[i] @ y[j] / (total + 1e-6) for j in others}
        losses.append(-np.log(sum(w[j] * e[j] for j in others) / sum(e.values())))
    return float(np.mean(losses))


def loss(x: np.ndarray, y: np.ndarray, weights: np.ndarray = ALL, temperature: float = 0.05) -> jax.Array:
    return contrastive_loss(x, label_affinity(y), weights, temperature)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_it_is_the_formula(temperature: float) -> None:
    np.testing.assert_allclose(loss(X, Y, temperature=temperature), formula(X, Y, temperature), rtol=1e-5)


@pytest.mark.slow
def test_padding_takes_no_part() -> None:
    padded_x, padded_y = np.concatenate([X, np.full((3, 16), 1e3, np.float32)]), np.concatenate([Y, np.ones((3, 20))])
    weights = np.concatenate([ALL, np.zeros(3)]).astype(np.float32)
    value, grad = jax.value_and_grad(lambda x: loss(x, padded_y, weights))(jnp.asarray(padded_x))
    np.testing.assert_allclose(value, formula(X, Y, 0.05), rtol=1e-5)
    assert not np.asarray(grad)[10:].any()
    np.testing.assert_allclose(grad[:10], jax.grad(lambda x: loss(x, Y))(jnp.asarray(X)), atol=1e-6)


def test_a_batch_without_partners_costs_nothing_and_pulls_nowhere() -> None:
    for labels in (np.zeros((10, 20)), np.eye(10, 20)):
        value, grad = jax.value_and_grad(lambda x, y=labels: loss(x, y.astype(np.float32)))(jnp.asarray(X))
        assert float(value) == 0
        assert not np.asarray(grad).any()


def test_extreme_embeddings_stay_finite() -> None:
    for x in (X * 1e4, np.zeros_like(X), np.repeat(X[:1], 10, 0), X.astype(jnp.bfloat16)):
        value, grad = jax.value_and_grad(lambda x: loss(x, Y))(jnp.asarray(x))
        assert jnp.isfinite(value)
        assert jnp.isfinite(grad).all()


def test_views_draw_an_argument_to_itself() -> None:
    x, y = np.repeat(X, 2, 0) + RANDOM.normal(size=(20, 16)).astype(np.float32), np.repeat(Y, 2, 0)
    weights = np.full(20, 0.5, np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    similarity = unit @ unit.T / 0.05
    np.fill_diagonal(similarity, -np.inf)
    partner = similarity[np.arange(20), np.arange(20) ^ 1]
    info_nce = (np.log(np.exp(similarity).sum(1)) - partner).mean()
    np.testing.assert_allclose(contrastive_loss(x, affinity_for("views", y), weights, 0.05), info_nce, rtol=1e-4)
    both = np.asarray(affinity_for("both", y))
    assert both[6, 7] == 1  # the row without categories has its other view
    np.testing.assert_array_equal(both[4:6, 8:10], Y[2] @ Y[4])


SIXTEEN = {"loss": {"contrastive": {"weight": 0.5, "embedding": "projected", "positives": "both", "temperature": 0.5}}}


@pytest.mark.slow
def test_one_device_and_eight_see_the_same_global_batch(quick_compiles: None) -> None:
    """Loss, gradient norm and the parameters after two steps, with dropout off so that views are equal."""
    ends = []
    for mesh in (None, make_mesh(MeshConfig())):
        run = tiny.Run(tiny.config(tiny.NO_DROPOUT, SIXTEEN, {"optimizer": {"eps": 1e-3}}), mesh)
        stream = run.batches.starting_at(0)
        first = next(stream)
        first["weights"][11:] = 0  # padding in the middle of a shard
        metrics = [run.step(first), run.step(next(stream))]
        ends.append((metrics, jax.tree.map(np.asarray, run.state.trainable)))
    (one, params), (eight, sharded) = ends
    assert one[0].keys() == {"loss", "contrastive", "positives", "learning_rate", "grad_norm"}
    for step in (0, 1):
        assert one[step] == pytest.approx(eight[step], rel=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), params, sharded)
    assert place_batch(first, run.system.mesh)["labels"].sharding.num_devices == 8


@pytest.mark.exhaustive
def test_the_term_is_weighed_and_both_numbers_are_traced(quick_compiles: None) -> None:
    run = tiny.Run(tiny.config(tiny.NO_DROPOUT, {"loss": {"contrastive": {"weight": 0.5}}}))
    batch = next(run.batches.starting_at(0))

    def metrics(**change: float) -> dict[str, float]:
        run.restart()
        numbers = {name: np.float32(value) for name, value in change.items()}
        return run.step(batch, run.hyper._replace(loss=run.hyper.loss._replace(**numbers)))

    half, none, sharp = metrics(), metrics(contrastive_weight=0), metrics(temperature=1e-4)
    assert half["loss"] == pytest.approx(none["loss"] + 0.5 * half["contrastive"], rel=1e-5)
    assert sharp["contrastive"] != pytest.approx(half["contrastive"], rel=1e-4)
    assert len(run.system.train_step) == 1
    planned = run.batches._epoch(0)[0]
    labels = run.tokens.labels[planned.rows].astype(np.float32)
    run.restart()
    before = run.system._apply(Bound(run.state.trainable), model_inputs(batch), None)
    assert before.embedding.shape == (16, 64)
    np.testing.assert_allclose(half["contrastive"], formula(np.asarray(before.embedding), labels, 0.05), rtol=1e-4)
