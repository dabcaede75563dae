"""The classifier head: pooling, combining layers, single and multiple heads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import CONFIGS, batch

from jaxvalues.errors import UserError
from jaxvalues.models import Classifier, build_model
from jaxvalues.models.heads.classifier import Head, pool

CONFIG = CONFIGS["bert"]
INPUTS = batch(CONFIG)
TOKENS = INPUTS["input_ids"], INPUTS["attention_mask"]


def build(**fields):
    model = Classifier(build_model(CONFIG), **fields)
    return model, jax.jit(model.init)(jax.random.key(0), *TOKENS)["params"]


@pytest.mark.slow
@pytest.mark.main_cases("cls-*-64-multiple", "mean-*-single")
@pytest.mark.parametrize("heads", ["single", "multiple"])
@pytest.mark.parametrize(
    ("pooling", "layers", "combine", "width"),
    [("cls", (-1,), "concat", 64), ("mean", (-1, -2), "concat", 128), ("cls", (1, 2), "mean", 64)],
)
def test_logits_are_linear_in_the_pooled_states(heads, pooling, layers, combine, width):
    model, params = build(heads=heads, pooling=pooling, layers=layers, combine=combine)
    assert params.keys() == {"encoder", "head"}
    assert params["head"]["kernel"].shape == ((width, 20) if heads == "single" else (20, width))
    assert float(params["head"]["kernel"].std()) == pytest.approx(0.02, rel=0.1)
    params["head"]["bias"] = jnp.arange(20.0)
    outputs = model.apply({"params": params}, *TOKENS)
    logits = np.asarray(outputs.logits)

    states = model.encoder.apply({"params": params["encoder"]}, *TOKENS, layers=layers)
    real = INPUTS["attention_mask"].astype(bool)
    if pooling == "cls":
        pooled = [np.asarray(h)[:, 0] for h in states]
    else:
        pooled = [np.stack([h[row][real[row]].mean(0) for row in range(len(real))]) for h in map(np.asarray, states)]
    features = np.concatenate(pooled, -1) if combine == "concat" else np.mean(pooled, 0)
    np.testing.assert_allclose(outputs.embedding, features, rtol=1e-5, atol=1e-5)
    kernel = params["head"]["kernel"] if heads == "single" else params["head"]["kernel"].T
    np.testing.assert_allclose(logits, features @ kernel + np.arange(20), rtol=1e-5, atol=1e-5)
    assert logits.dtype == np.float32


def test_each_of_multiple_heads_drops_for_itself():
    params = {"kernel": jnp.ones((20, 64)), "bias": jnp.zeros(20)}
    logits = Head(20, "multiple", 0.5).apply({"params": params}, jnp.ones((3, 64)), jax.random.key(0))
    assert all(len(np.unique(row)) > 5 for row in logits)
    params["kernel"] = params["kernel"].T
    logits = Head(20, "single", 0.5).apply({"params": params}, jnp.ones((3, 64)), jax.random.key(0))
    assert all(len(np.unique(row)) == 1 for row in logits)  # one mask for all categories
    assert len(np.unique(logits)) == 3


@pytest.mark.slow
def test_dropout_only_when_asked_for():
    model, params = build()
    quiet = model.apply({"params": params}, *TOKENS).logits
    np.testing.assert_array_equal(quiet, model.apply({"params": params}, *TOKENS).logits)
    noisy = model.apply({"params": params}, *TOKENS, deterministic=False, rngs={"dropout": jax.random.key(0)}).logits
    assert np.abs(quiet - noisy).max() > 1e-3


@pytest.mark.slow
def test_a_projection_changes_the_embedding_and_not_the_logits():
    model, params = build(projection_size=12)
    assert params.keys() == {"encoder", "head", "projection"}
    outputs = model.apply({"params": params}, *TOKENS)
    plain = model.clone(projection_size=None).apply({"params": params}, *TOKENS)
    np.testing.assert_array_equal(outputs.logits, plain.logits)
    hidden, out = params["projection"]["hidden"], params["projection"]["out"]
    expected = np.maximum(plain.embedding @ hidden["kernel"] + hidden["bias"], 0) @ out["kernel"] + out["bias"]
    np.testing.assert_allclose(outputs.embedding, expected, rtol=1e-5, atol=1e-6)
    assert outputs.embedding.shape == (len(TOKENS[0]), 12)


def test_rows_without_tokens_are_finite():
    hidden = jax.random.normal(jax.random.key(0), (2, 5, 8), jnp.bfloat16)
    pooled = pool(hidden, np.array([[1, 1, 0, 0, 0], [0] * 5]), "mean")
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled[0], np.asarray(hidden, np.float32)[0, :2].mean(0), rtol=1e-6)
    assert not pooled[1].any()


def test_unknown_choices_are_said():
    for fields, message in (
        ({"heads": "many"}, "heads is 'many', expected one of single, multiple"),
        ({"pooling": "max"}, "pooling is 'max', expected one of cls, mean"),
        ({"combine": "sum"}, "combine is 'sum', expected one of concat, mean"),
    ):
        with pytest.raises(UserError, match=message):
            build(**fields)
