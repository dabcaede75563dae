"""MPNet against torch: hidden states and every gradient, from stored numbers and live; its config and its files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest
from bert_reference import assert_close
from deberta_reference import torch_config
from make_golden import GOLDEN, STRIDE
from mpnet_reference import MPNET, batch, tensors, torch_results

from jaxvalues.errors import UserError
from jaxvalues.models import abstract_model, build_model, init_model, load_model, save_model, ungroup
from jaxvalues.models.checkpoints.conversion import to_params, to_tensors
from jaxvalues.models.mpnet.checkpoint import TABLE
from jaxvalues.models.mpnet.config import MPNetConfig


def results(config: dict, weights: dict, inputs: dict, **options: Any) -> dict:
    """The numbers of `torch_results`, from this package."""
    module, shapes = abstract_model(config, **options)
    tokens = inputs["input_ids"], inputs["attention_mask"]
    every = tuple(range(config["num_hidden_layers"] + 1))

    def along(params: Any) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        hidden = module.apply({"params": params}, *tokens, layers=every)
        return (hidden[-1] * inputs["direction"]).sum(), hidden

    grads, hidden = jax.jit(jax.grad(along, has_aux=True))(to_params(weights, TABLE, shapes))
    return {"hidden": np.stack(hidden), "grads": to_tensors(grads, TABLE)}


def compare(ours: dict, theirs: dict) -> None:
    """All numbers to 1e-5, or gradients to rounding (1e-6) of the largest of all: a key's bias has none."""
    assert_close(ours["hidden"], theirs["hidden"], name="hidden states")
    largest = max(np.abs(grad).max() for grad in theirs["grads"].values())
    assert ours["grads"].keys() == theirs["grads"].keys()
    assert np.abs(theirs["grads"]["encoder.relative_attention_bias.weight"]).max() > 1e-3 * largest
    for name, grad in theirs["grads"].items():
        assert_close(ours["grads"][name], grad, floor=1e-6 * largest, name=name)


def test_stored_torch_numbers() -> None:
    with np.load(GOLDEN / "mpnet.npz") as stored:
        theirs: dict[str, Any] = {"hidden": stored["hidden"]}
        theirs["grads"] = {name.removeprefix("grad:"): stored[name] for name in stored.files if ":" in name}
    ours = results(MPNET, tensors(MPNET), batch(MPNET), scan=False)
    ours["grads"] = {name: grad.ravel()[::STRIDE] for name, grad in ours["grads"].items()}
    compare(ours, theirs)


@pytest.mark.main_cases("options1")
@pytest.mark.parametrize("options", [{"scan": False}, {"scan": True, "boundary": 2, "remat": True}])
def test_live_torch(options: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    config = MPNET | {"num_hidden_layers": 3, "vocab_size": 90, "hidden_act": "gelu_new"}
    weights, inputs = tensors(config, seed=2), batch(config, seed=3)
    compare(results(config, weights, inputs, **options), torch_results(config, weights, inputs))


@pytest.mark.slow
def test_scanned_and_unrolled_start_and_drop_alike() -> None:
    inputs = batch(MPNET)
    dropped = []
    for options in ({"scan": False}, {"scan": True, "remat": True}):
        module, params = init_model(MPNET, 7, **options)

        @jax.jit
        def run(params: Any, key: jax.Array, module: Any = module) -> jax.Array:
            tokens = inputs["input_ids"], inputs["attention_mask"]
            return module.apply({"params": params}, *tokens, deterministic=False, rngs={"dropout": key})[0]

        dropped.append((ungroup(params), run(params, jax.random.key(3)), run(params, jax.random.key(4))))
    (unrolled, one, another), (scanned, same, _) = dropped
    chex.assert_trees_all_close(scanned, unrolled, rtol=1e-6)  # the same draws, as two programs round them
    assert_close(one, same)
    assert np.abs(one - another).max() > 0.1


@pytest.mark.slow
def test_nothing_below_the_boundary_is_differentiated() -> None:
    """The biases of distances neither, though the layers above use them."""
    inputs = batch(MPNET)

    def gradient(stop: int) -> Any:
        module, params = init_model(MPNET, 0, scan=False, stop_gradient_below=stop)

        def loss(params: Any) -> jax.Array:
            (last,) = module.apply({"params": params}, inputs["input_ids"], inputs["attention_mask"])
            return (last * inputs["direction"]).sum()

        return jax.jit(jax.grad(loss))(params)

    full, stopped = gradient(0), gradient(1)
    assert full["embeddings"]["relative"]["embedding"].any()
    assert not any(leaf.any() for leaf in jax.tree.leaves((stopped["embeddings"], stopped["layers"]["0"])))
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(full))
    jax.tree.map(lambda a, b: assert_close(a, b, floor=1e-6 * largest), stopped["layers"]["1"], full["layers"]["1"])


@pytest.mark.slow
def test_padding_is_not_seen_and_stays_finite() -> None:
    module, params = init_model({**MPNET, "initializer_range": 0.2}, 0)
    ids = np.full((2, 12), 1)
    ids[0, :3] = 9
    mask = np.array([[1] * 3 + [0] * 9, [0] * 12])

    def loss(params: Any, ids: np.ndarray) -> jax.Array:
        return (module.apply({"params": params}, ids, mask)[0] ** 2).sum()

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(params, ids)))
    run = jax.jit(lambda ids, mask: module.apply({"params": params}, ids, mask)[0])
    np.testing.assert_allclose(run(ids, mask)[0, :3], run(np.where(mask, ids, 7), mask)[0, :3], atol=1e-6)
    np.testing.assert_allclose(run(ids, mask)[0, :3], run(ids[:, :3], mask[:, :3])[0], atol=1e-5)


@pytest.mark.slow
def test_save_and_load_are_each_others_inverse_and_transformers_agrees(tmp_path: Path) -> None:
    module, params = init_model(MPNET, 5, scan=True)
    save_model(tmp_path / "ours", MPNET, params, prefix="mpnet.")
    loaded, again = load_model(tmp_path / "ours", scan=True)
    assert loaded == module
    chex.assert_trees_all_equal(again, params)

    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    inputs = batch(MPNET)
    classifier, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not report["unexpected_keys"]
    assert all(name.startswith("classifier.") for name in report["missing_keys"])
    with torch.no_grad():
        theirs = classifier.eval().mpnet(*(torch.tensor(inputs[k]).long() for k in ("input_ids", "attention_mask")))[0]
    ours = jax.jit(lambda p: module.apply({"params": p}, inputs["input_ids"], inputs["attention_mask"])[0])(params)
    assert_close(ours, theirs.numpy())

    classifier.save_pretrained(tmp_path / "theirs")  # with the classifier, which is no part of an encoder
    chex.assert_trees_all_equal(load_model(tmp_path / "theirs", scan=True)[1], params)


def test_a_published_config_is_read() -> None:
    """microsoft/mpnet-base's sizes."""
    base = {"model_type": "mpnet", "vocab_size": 30527, "hidden_size": 768, "num_hidden_layers": 12}
    base |= {"num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 514}
    sizes = [leaf.size for leaf in jax.tree.leaves(abstract_model(base)[1])]
    assert sum(sizes) == 30527 * 768 + 514 * 768 + 2 * 768 + 32 * 12 + 12 * (4 * 590_592 + 4_722_432 + 3072)
    assert MPNetConfig.from_hf(base).max_tokens == 512
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    with torch.device("meta"):
        theirs = transformers.MPNetModel(torch_config(base), add_pooling_layer=False)
    assert sum(sizes) == sum(parameter.numel() for parameter in theirs.parameters())


@pytest.mark.slow
def test_all_mpnet_base_v2_on_real_arguments(real_data: Path) -> None:
    """The real network: needs a folder of it in JAXVALUES_MPNET, and the data."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = os.environ.get("JAXVALUES_MPNET")
    if folder is None:
        pytest.skip("JAXVALUES_MPNET names no folder of all-mpnet-base-v2")
    lines = (real_data / "arguments-training.tsv").read_text(encoding="utf-8").splitlines()[1:33]
    texts = [" ".join(line.split("\t")[1:]) for line in lines]
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="np")
    with torch.no_grad():
        theirs = transformers.AutoModel.from_pretrained(folder).eval()(
            **{name: torch.tensor(array) for name, array in tokens.items()}, output_hidden_states=True
        )
    given, real = (tokens["input_ids"], tokens["attention_mask"]), tokens["attention_mask"][..., None]
    for scan in (False, True):
        module, params = load_model(folder, scan=scan)
        ours = jax.jit(lambda p, run=module.apply: run({"params": p}, *given, layers=tuple(range(13))))(params)
        for mine, state in zip(ours, theirs.hidden_states, strict=True):
            np.testing.assert_allclose(mine * real, state.numpy() * real, rtol=0, atol=1e-4)


def test_what_cannot_be_read_is_said() -> None:
    for key, value in (("relative_attention_num_buckets", 64), ("pad_token_id", 0)):
        with pytest.raises(UserError, match=f"{key} = {value} is not supported for mpnet models, only"):
            build_model(MPNET | {key: value})
    module, params = init_model(MPNET, 0)
    with pytest.raises(UserError, match="39 tokens, but this mpnet model reads at most 38"):
        module.apply({"params": params}, np.ones((1, 39), int), np.ones((1, 39), int))
    outside = np.array([[5, 70]])  # the vocabulary ends at 69
    assert np.isnan(module.apply({"params": params}, outside, np.ones_like(outside))[0]).all()
