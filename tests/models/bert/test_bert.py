"""BERT and RoBERTa against torch: hidden states, logits and every gradient, from stored numbers and live."""

from __future__ import annotations

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import CONFIGS, assert_close, batch, tensors, torch_model, torch_results
from make_golden import GOLDEN, STRIDE

from jaxvalues.errors import UserError
from jaxvalues.models import Classifier, abstract_model, build_model, init_model, load_model, ungroup
from jaxvalues.models.bert.checkpoint import TABLE
from jaxvalues.models.checkpoints.conversion import to_params, to_tensors

KINDS = sorted(CONFIGS)


def results(config: dict, weights: dict, inputs: dict, **options) -> dict:
    """The numbers of `torch_results`, from this package."""
    encoder, shapes = abstract_model(config, **options)
    model = Classifier(encoder)
    head = {"kernel": jnp.asarray(inputs["kernel"]), "bias": jnp.zeros(inputs["kernel"].shape[1])}
    params = {"encoder": to_params(weights, TABLE, shapes), "head": head}
    tokens = [inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids")]

    def loss(params):
        logits = model.apply({"params": params}, *tokens).logits
        return jnp.mean(jnp.logaddexp(0.0, logits) - logits * inputs["labels"]), logits

    (value, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    every = tuple(range(config["num_hidden_layers"] + 1))
    hidden = jax.jit(lambda p: encoder.apply({"params": p}, *tokens, layers=every))(params["encoder"])
    return {
        "hidden": np.stack(hidden),
        "logits": np.asarray(logits),
        "loss": float(value),
        "grads": to_tensors(grads["encoder"], TABLE),
    }


def compare(ours: dict, theirs: dict) -> None:
    """All numbers to 1e-5, or to rounding (3e-7) of the largest gradient of all: queries' and keys' are small sums of
    large terms, and those of a key's bias zero; torch's own float32 is as far from its float64."""
    assert_close(ours["hidden"], theirs["hidden"], name="hidden states")
    assert_close(ours["logits"], theirs["logits"], name="logits")
    assert_close(ours["loss"], theirs["loss"], name="loss")
    largest = max(np.abs(grad).max() for grad in theirs["grads"].values())
    assert ours["grads"].keys() == theirs["grads"].keys()
    for name, grad in theirs["grads"].items():
        assert_close(ours["grads"][name], grad, floor=3e-7 * largest, name=name)


@pytest.mark.main_cases("bert-False", "roberta-True")
@pytest.mark.parametrize(("kind", "scan"), itertools.product(KINDS, (False, True)))
def test_stored_torch_numbers(kind, scan):
    config = CONFIGS[kind]
    with np.load(GOLDEN / f"{kind}.npz") as stored:
        theirs = {name: stored[name] for name in ("hidden", "logits", "loss")}
        theirs["grads"] = {name.removeprefix("grad:"): stored[name] for name in stored.files if ":" in name}
    ours = results(config, tensors(config), batch(config), scan=scan)
    ours["grads"] = {name: grad.ravel()[::STRIDE] for name, grad in ours["grads"].items()}
    compare(ours, theirs)


@pytest.mark.main_cases("roberta-options3")
@pytest.mark.parametrize(
    ("kind", "options"), itertools.product(KINDS, ({}, {"scan": True, "boundary": 3, "remat": True}))
)
def test_live_torch(kind, options):
    pytest.importorskip("torch")
    config = CONFIGS[kind] | {"num_hidden_layers": 4, "vocab_size": 90, "hidden_act": "gelu_new"}
    weights, inputs = tensors(config, seed=2), batch(config, seed=3)
    compare(results(config, weights, inputs, **options), torch_results(config, weights, inputs))


@pytest.mark.exhaustive
def test_scanned_and_unrolled_start_and_drop_alike():
    config = CONFIGS["roberta"] | {"num_hidden_layers": 3}
    inputs = batch(config)
    tokens = inputs["input_ids"], inputs["attention_mask"]

    def dropped(options):
        module, params = init_model(config, 7, **options)

        @jax.jit
        def run(params, key):
            rngs = {"dropout": key}
            return module.apply({"params": params}, *tokens, deterministic=False, layers=(0, 3), rngs=rngs)

        return ungroup(params), (*run(params, jax.random.key(3)), *run(params, jax.random.key(4)))

    params, unrolled = dropped({"scan": False})
    for options in ({"scan": True}, {"scan": True, "boundary": 2, "remat": True}):
        scanned_params, scanned = dropped(options)
        chex.assert_trees_all_equal(scanned_params, params)
        for a, b in zip(scanned, unrolled, strict=True):
            assert_close(a, b)
    for k in (0, 1):  # the embeddings drop, and the layers; another key drops other entries
        assert np.abs(unrolled[k] - unrolled[k + 2]).max() > 0.1

    silent = build_model(config, scan=False, hidden_dropout=0.0, attention_dropout=0.0)
    quiet = silent.apply({"params": params}, *tokens, deterministic=False, rngs={"dropout": jax.random.key(3)})
    np.testing.assert_array_equal(quiet[0], silent.apply({"params": params}, *tokens)[0])


def test_initialisation_follows_the_config():
    config = CONFIGS["roberta"] | {"initializer_range": 0.05}
    _, params = init_model(config, 1)
    word, layer = params["embeddings"]["word"]["embedding"], params["layers"]["1"]
    assert not word[1].any()
    assert not params["embeddings"]["position"]["embedding"][1].any()
    assert float(word[2:].std()) == pytest.approx(0.05, rel=0.1)
    assert float(layer["mlp"]["up"]["kernel"].std()) == pytest.approx(0.05, rel=0.1)
    assert not layer["mlp"]["up"]["bias"].any()
    assert (layer["mlp_norm"]["scale"] == 1).all()
    assert not np.array_equal(layer["mlp"]["up"]["kernel"], params["layers"]["0"]["mlp"]["up"]["kernel"])


@pytest.mark.slow
@pytest.mark.main_cases("options1-*")
@pytest.mark.parametrize(("options", "below"), [({"scan": False}, "0"), ({"scan": True, "boundary": 2}, "0-1")])
def test_nothing_below_the_boundary_is_differentiated(options, below):
    config = CONFIGS["bert"] | {"num_hidden_layers": 4}
    inputs = batch(config)

    def gradient(stop):
        module, shapes = abstract_model(config, stop_gradient_below=stop, **options)
        params = to_params(tensors(config), TABLE, shapes)

        def loss(params):
            (last,) = module.apply({"params": params}, inputs["input_ids"], inputs["attention_mask"])
            return jnp.square(last[:, 0, :8]).sum()

        return jax.jit(jax.grad(loss))(params), str(jax.make_jaxpr(jax.grad(loss))(params)).count("dot_general")

    (full, products), (stopped, fewer) = gradient(0), gradient(2)
    assert fewer < products
    assert all(not leaf.any() for leaf in jax.tree.leaves((stopped["embeddings"], stopped["layers"][below])))
    assert all(leaf.any() for leaf in jax.tree.leaves((full["embeddings"]["word"], full["layers"][below]["mlp"])))
    above = [key for key in full["layers"] if int(key.split("-")[0]) >= 2]
    pairs = zip(*(jax.tree.leaves([grads["layers"][key] for key in above]) for grads in (stopped, full)), strict=True)
    for mine, theirs in pairs:
        assert_close(mine, theirs, 1e-6, floor=5e-7)


@pytest.mark.slow
@pytest.mark.main_cases("False")
@pytest.mark.parametrize("scan", [False, True])
def test_hidden_states_are_chosen_as_in_transformers_and_cost_no_more(scan):
    config = CONFIGS["bert"] | {"num_hidden_layers": 4}
    module, params = init_model(config, 0, scan=scan)
    inputs = batch(config)

    def run(layers):
        return module.apply({"params": params}, inputs["input_ids"], inputs["attention_mask"], layers=layers)

    every = run((0, 1, 2, 3, 4))
    for layers in ((-1,), (0,), (-2, 1), (3, -5)):
        for state, k in zip(run(layers), layers, strict=True):
            np.testing.assert_allclose(state, every[k], rtol=0, atol=1e-6)

    if not scan:  # a jaxpr shows a loop's body once
        products = [str(jax.make_jaxpr(lambda top=top: run((top,)))()).count("dot_general") for top in (0, 2, 4)]
        assert products[0] == 0
        assert products[2] == 2 * products[1] > 0
    with pytest.raises(UserError, match="hidden state 5 was asked for, but a network of 4 layers has -5 to 4"):
        run((5,))


@pytest.mark.slow
@pytest.mark.main_cases("roberta")
@pytest.mark.parametrize("kind", KINDS)
def test_padded_rows_stay_finite(kind):
    config = CONFIGS[kind]
    module, params = init_model(config, 0)
    ids = np.full((2, 8), config["pad_token_id"])
    ids[0, :3] = 9
    mask = np.array([[1] * 3 + [0] * 5, [0] * 8])

    def loss(params, ids):
        return jnp.square(module.apply({"params": params}, ids, mask)[0]).sum()

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(params, ids)))
    other = np.where(mask, ids, config["pad_token_id"] + 7)  # what stands under the mask is not seen (BERT: positions)
    a, b = (module.apply({"params": params}, x, mask)[0][0, :3] for x in (ids, other))
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_bfloat16_computes_near_float32_and_keeps_float32_parameters():
    config = CONFIGS["bert"]
    inputs = batch(config)
    outputs = []
    for dtype in ("float32", "bfloat16"):
        module, params = init_model(config, dtype=dtype)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
        (out,) = module.apply({"params": params}, inputs["input_ids"], inputs["attention_mask"])
        assert out.dtype == dtype
        outputs.append(np.asarray(out, np.float32))
    assert_close(*reversed(outputs), relative=0.03)


def test_what_cannot_be_read_is_said():
    config = CONFIGS["roberta"]
    module, params = init_model(config, 0)
    with pytest.raises(UserError, match=r"39 tokens, but this roberta model reads at most 38"):
        module.apply({"params": params}, np.ones((1, 39), int), np.ones((1, 39), int))
    outside = np.array([[5, 70]])  # the vocabulary ends at 69
    assert np.isnan(module.apply({"params": params}, outside, np.ones_like(outside))[0]).all()


@pytest.mark.slow
def test_minilm_on_real_arguments(real_data, minilm):
    pytest.importorskip("torch")
    import torch
    from transformers import AutoModel, AutoTokenizer

    lines = (real_data / "arguments-training.tsv").read_text(encoding="utf-8").splitlines()[1:33]
    texts = [" ".join(line.split("\t")[1:]) for line in lines]
    tokens = AutoTokenizer.from_pretrained(minilm)(texts, padding=True, return_tensors="np")
    with torch.no_grad():
        reference = AutoModel.from_pretrained(minilm).eval()(
            **{name: torch.tensor(array) for name, array in tokens.items()}, output_hidden_states=True
        )
    for scan in (False, True):
        module, params = load_model(minilm, scan=scan)
        ours = module.apply({"params": params}, tokens["input_ids"], tokens["attention_mask"], layers=(1, 6))
        for mine, theirs in zip(ours, (reference.hidden_states[1], reference.last_hidden_state), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_export_runs_in_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    config = CONFIGS["roberta"]
    module, params = init_model(config, 5, scan=True)
    inputs = batch(config)
    model = torch_model(config, to_tensors(params, TABLE))
    ids, mask = (torch.tensor(inputs[name]).long() for name in ("input_ids", "attention_mask"))
    with torch.no_grad():
        theirs = model(ids, mask).last_hidden_state
    assert_close(module.apply({"params": params}, inputs["input_ids"], inputs["attention_mask"])[0], theirs.numpy())
