"""Dropout before LoRA's matrices: in training alone, of the branch alone, with the mean that is without it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tuned import CONFIGS

from jaxvalues.config import TuningConfig
from jaxvalues.models.layers.dense import BranchDropout, Dense
from jaxvalues.run.system import System
from jaxvalues.training.sharding import place_batch
from jaxvalues.tuning.peft_format import PeftTarget, to_peft

pytestmark = pytest.mark.usefixtures("quick_compiles")


def test_the_branch_alone_is_dropped_and_keeps_its_mean() -> None:
    rng = np.random.default_rng(0)
    x, kernel, a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 8), (8, 6), (8, 2), (2, 6)))
    branch = {"a": a, "b": b}

    def apply(branch: Any) -> jax.Array:
        return Dense(6, use_bias=False).apply({"params": {"kernel": kernel, "low_rank": branch}}, x)

    keys = jax.random.split(jax.random.key(0), 2000)
    dropped = jax.lax.map(lambda key: apply({**branch, "dropout": BranchDropout(key, 0.25)}), keys)
    assert not np.allclose(dropped[0], dropped[1])
    np.testing.assert_allclose(dropped.mean(axis=0), apply(branch), atol=0.25)
    silent = {"a": a, "b": 0 * b, "dropout": BranchDropout(keys[0], 0.25)}
    np.testing.assert_allclose(apply(silent), x @ kernel, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.main_cases("roberta-*")
@pytest.mark.parametrize(("network", "scan"), [("roberta", True), ("t5", False)])
def test_dropout_acts_in_training_only(network: str, scan: bool) -> None:
    """Also where T5's one query would merge LoRA into the kernels, and not where nothing is to be dropped."""
    kind = "answer" if network == "t5" else "masked_choice"
    logits: dict[float, list[np.ndarray]] = {}
    for rate in (0.0, 0.5):
        tuning = {"method": "lora", "rank": 4, "lora_dropout": rate, "targets": ["key", "value"]}
        config = tiny.question_config(kind, network, {"tuning": tuning}, {"model": {"scan": scan}})
        if network == "roberta":
            config = tiny.config(tiny.NO_DROPOUT, {"tuning": tuning}, {"model": {"scan": scan}})
        system = tiny.system(config)
        logits[rate] = outputs(system)
    first, second, none = logits[0.5]
    assert not np.allclose(first, second, atol=1e-4)  # two keys
    np.testing.assert_array_equal(none, logits[0.0][2])  # no key: evaluation
    np.testing.assert_allclose(logits[0.0][0], none, atol=1e-5)  # a key, and nothing to drop


def outputs(system: System) -> list[np.ndarray]:
    """Logits with two dropout keys and without one; LoRA's b is not 0."""
    frozen, trainable = tiny.parts(system)
    trainable["lora"] = jax.tree.map(lambda x: jnp.where(x == 0, 0.1, x), trainable["lora"])
    tokens = system.formulation.encode(tiny.split().arguments, tiny.split().labels)
    batch = place_batch(tiny.batch(system, tokens, 4), system.mesh)
    bound = system.network.tuning.bind(frozen, trainable)
    return [
        np.asarray(jax.jit(system._apply)(bound, batch, key).logits)
        for key in (jax.random.key(0), jax.random.key(1), None)
    ]


def test_the_rate_is_written_for_peft() -> None:
    config = TuningConfig(method="lora", rank=2, lora_dropout=0.1, targets=("query",))
    leaf = {"a": np.ones((64, 2), np.float32), "b": np.ones((2, 64), np.float32)}
    tree = {"lora": {"encoder": {"layers": {"0": {"attention": {"query": leaf}}}}}}
    content, _ = to_peft(config, PeftTarget(CONFIGS["roberta"], "SEQ_CLS"), tree)
    assert content["lora_dropout"] == 0.1


def test_the_rate_belongs_to_lora() -> None:
    with pytest.raises(ValueError, match="lora_dropout"):
        TuningConfig(method="ia3", lora_dropout=0.1)
