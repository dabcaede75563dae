"""The Llama family against torch: hidden states, logits and every gradient, from stored numbers and live."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import assert_close
from llama_reference import CONFIGS, batch, model, tensors, torch_results

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


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("kind", CONFIGS)
def test_live_torch(kind, scan):
    pytest.importorskip("torch")
    config = CONFIGS[kind]
    compare(results(config, INPUTS, scan=scan), torch_results(config, tensors(config), INPUTS))
