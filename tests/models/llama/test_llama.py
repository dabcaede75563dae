"""The Llama family against torch: hidden states, logits and every gradient, from stored numbers and live."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import assert_close
from llama_reference import CONFIGS, STORED, batch, model, tensors, torch_model, torch_results
from make_golden import GOLDEN, STRIDE

from jaxvalues.errors import UserError
from jaxvalues.models import group, load_causal_lm, load_model, save_causal_lm, ungroup
from jaxvalues.models.checkpoints.conversion import to_tensors
from jaxvalues.models.heads.causal_lm import causal_lm_table

INPUTS = batch()


def results(config: dict, inputs: dict, seed: int = 0, **options) -> dict:
    """The numbers of `torch_results`, from this package."""
    module, params = model(config, seed, **options)
    tokens, real = (inputs["input_ids"], inputs["attention_mask"]), inputs["attention_mask"][..., None]

    def loss(params):
        logits = module.apply({"params": params}, *tokens)
        every = tuple(range(config["num_hidden_layers"] + 1))
        hidden = module.encoder.apply({"params": params["encoder"]}, *tokens, layers=every)
        return jnp.mean(logits * inputs["direction"]), (logits * real, jnp.stack(hidden) * real)

    (_, (logits, hidden)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    named = to_tensors(grads, causal_lm_table(config["model_type"]))
    named = {name if name.startswith("lm_head") else f"model.{name}": grad for name, grad in named.items()}
    return {"logits": logits, "hidden": hidden, "grads": named}


def compare(ours: dict, theirs: dict) -> None:
    """All numbers to 1e-5, or to rounding (3e-7) of the largest gradient of all (see test_bert)."""
    assert_close(ours["hidden"], theirs["hidden"], name="hidden states")
    assert_close(ours["logits"], theirs["logits"], name="logits")
    largest = max(np.abs(grad).max() for grad in theirs["grads"].values())
    assert ours["grads"].keys() == theirs["grads"].keys()
    for name, grad in theirs["grads"].items():
        assert_close(ours["grads"][name], grad, floor=3e-7 * largest, name=name)


@pytest.mark.main_cases("llama-False", "gemma3-True")
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("kind", STORED)
def test_stored_torch_numbers(kind, scan):
    with np.load(GOLDEN / f"{kind}.npz") as stored:
        theirs = {name: stored[name] for name in ("hidden", "logits")}
        theirs["grads"] = {name.removeprefix("grad:"): stored[name] for name in stored.files if ":" in name}
    ours = results(CONFIGS[kind], INPUTS, scan=scan)
    ours["grads"] = {name: grad.ravel()[::STRIDE] for name, grad in ours["grads"].items()}
    compare(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("kind", CONFIGS)
def test_live_torch(kind, scan):
    pytest.importorskip("torch")
    config = CONFIGS[kind]
    compare(results(config, INPUTS, scan=scan), torch_results(config, tensors(config), INPUTS))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3"])  # an output matrix of its own; biases; norms plus one
def test_files_of_transformers_and_ours_are_the_same(kind, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = CONFIGS[kind]
    theirs = torch_model(config, tensors(config))
    theirs.save_pretrained(tmp_path / "theirs")
    module, params = load_causal_lm(tmp_path / "theirs", scan=True)
    jax.tree.map(np.testing.assert_array_equal, ungroup(params), model(config)[1])
    assert module.encoder.config == model(config)[0].encoder.config  # of the config.json that transformers writes

    save_causal_lm(tmp_path / "ours", {**config, "marker": 1}, params)
    again, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    for name, parameter in theirs.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter), name
    _, same = load_causal_lm(tmp_path / "ours", scan=True)
    jax.tree.map(np.testing.assert_array_equal, same, params)
    encoder, inside = load_model(tmp_path / "ours", scan=True)
    jax.tree.map(np.testing.assert_array_equal, inside, group(model(config)[1]["encoder"], encoder.segments))


def test_an_output_matrix_must_be_there_unless_it_is_the_word_vectors(tmp_path):
    config = CONFIGS["qwen2"]
    save_causal_lm(tmp_path, config, model(config)[1])
    with pytest.raises(UserError, match=r"tensors missing: lm_head.weight$"):
        load_causal_lm(_with_config(tmp_path, config | {"tie_word_embeddings": False}))
    _, params = load_causal_lm(_with_config(tmp_path, config), scan=False)
    jax.tree.map(np.testing.assert_array_equal, params, model(config)[1])
    with pytest.raises(UserError, match=r"tensors not expected: .*q_proj.bias"):  # a Mistral has no biases
        load_causal_lm(_with_config(tmp_path, config | {"model_type": "mistral"}))


def _with_config(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    return folder
