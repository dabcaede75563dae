"""The dtype of a run: how `auto` decides, and that bfloat16 computes the same networks within its rounding."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict

from jaxvalues.errors import ConfigError
from jaxvalues.run import probe
from jaxvalues.run.held import hold_all, hold_frozen
from jaxvalues.run.resolve import resolve, resolve_dtype, with_one_dtype
from jaxvalues.run.system import System, Weights
from jaxvalues.training.step import make_eval_step

AUTO = {"model": {"dtype": "auto"}}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that lets products take so many seconds, and measures them anew."""
    monkeypatch.delenv(probe.VARIABLE)

    def let(**seconds: float) -> None:
        probe.cpu_dtype.cache_clear()
        monkeypatch.setattr(probe, "_product", lambda dtype: functools.partial(time.sleep, seconds[dtype.name]))

    yield let
    probe.cpu_dtype.cache_clear()


def test_the_faster_dtype_is_measured_once(measured: Any) -> None:
    measured(float32=0.010, bfloat16=0.004)
    assert resolve_dtype("auto") == "bfloat16"
    measured(float32=0.010, bfloat16=0.009)  # not enough to round for
    assert resolve_dtype("auto") == "float32"
    assert resolve_dtype("bfloat16") == "bfloat16"
    start = time.perf_counter()
    assert [resolve_dtype("auto") for _ in range(100)] == ["float32"] * 100
    assert time.perf_counter() - start < 0.1


def test_both_products_run() -> None:
    seconds = probe._fastest({name: probe._product(jnp.dtype(name)) for name in probe.DTYPES})
    assert all(0 < each < 1 for each in seconds.values())


def test_operations_are_counted_by_the_time_of_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_fastest", lambda each: dict.fromkeys(each, 2.0))
    probe.operations_per_second.cache_clear()
    assert probe.operations_per_second("float32") == 3 * 2 * 16 * 48 * 384**2 / 2.0
    probe.operations_per_second.cache_clear()


def test_a_variable_takes_the_place_of_the_measurement(measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measured()
    monkeypatch.setenv(probe.VARIABLE, "bfloat16")
    assert resolve_dtype("auto") == "bfloat16"
    probe.cpu_dtype.cache_clear()
    monkeypatch.setenv(probe.VARIABLE, "fast")
    with pytest.raises(ConfigError, match="JAXVALUES_CPU_DTYPE is 'fast', expected float32 or bfloat16"):
        resolve_dtype("auto")


def test_runs_that_are_combined_have_one_dtype(measured: Any, tmp_path: Path) -> None:
    """That of a run that was begun elsewhere, else one decision for all."""
    runs = [tiny.config(AUTO).model_copy(update={"output": str(tmp_path / str(seed))}) for seed in range(3)]
    measured(float32=0.001, bfloat16=0.004)
    assert [one.model.dtype for one in with_one_dtype(runs)] == ["float32"] * 3
    (tmp_path / "1").mkdir()
    begun = resolve(runs[1]).model_copy(update={"model": runs[1].model.model_copy(update={"dtype": "bfloat16"})})
    (tmp_path / "1/config.yaml").write_text(begun.to_yaml(), encoding="utf-8")
    assert [one.model.dtype for one in with_one_dtype(runs)] == ["bfloat16"] * 3
    assert with_one_dtype([begun]) == [begun]


def test_a_run_keeps_what_was_decided_at_its_start(measured: Any, tmp_path: Path) -> None:
    config = tiny.config(AUTO).model_copy(update={"output": str(tmp_path)})
    measured(float32=0.004, bfloat16=0.001)
    decided = resolve(config)
    assert decided.model.dtype == "bfloat16"
    (tmp_path / "config.yaml").write_text(decided.to_yaml(), encoding="utf-8")
    measured(float32=0.001, bfloat16=0.004)  # another machine
    assert resolve(config).model.dtype == "bfloat16"
    assert resolve(config.model_copy(update={"output": str(tmp_path / "new")})).model.dtype == "float32"


NETWORKS = {
    "roberta": tiny.config({"tuning": {"method": "last_layers", "layers": 1}}, tiny.NO_DROPOUT),
    "deberta-v2": tiny.config({"model": {"config": tiny.DEBERTA_V2, "dropout": 0.0}}, tiny.NO_DROPOUT),
    "gpt2": tiny.question_config("answer", "gpt2", {"tuning": {"method": "prompt"}}),
    "t5": tiny.question_config("answer", "t5", {"tuning": {"method": "prompt"}}),
    "masked": tiny.question_config("masked_choice", "roberta", {"tuning": {"method": "bitfit"}}),
}


def computed(system: System, weights: Weights, batch: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and all gradients in one vector."""
    tuning = system.network.tuning
    logits = jax.jit(make_eval_step(system._apply, tuning))(weights.trainable, weights.frozen, batch)

    def loss(trainable: Any) -> jax.Array:
        outputs = system._apply(tuning.bind(weights.frozen, trainable), batch, None)
        return jnp.square(outputs.logits - 1.0).mean()

    grads = jax.jit(jax.grad(loss))(weights.trainable)
    return np.asarray(logits), np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])


@pytest.mark.main_cases("roberta-False", "gpt2-True", "deberta-v2-False")
@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_is_float32_within_its_rounding(name: str, scan: bool, quick_compiles: None) -> None:
    results = {}
    for dtype in ("float32", "bfloat16"):
        config = NETWORKS[name]
        config = config.model_copy(update={"model": config.model.model_copy(update={"dtype": dtype, "scan": scan})})
        system = tiny.system(config)
        weights = hold_frozen(system, Weights(*tiny.parts(system, 1.0)))
        data = tiny.split().subset(range(8))
        tokens = system.formulation.encode(data.arguments, data.labels)
        results[dtype] = computed(system, weights, tiny.batch(system, tokens, 8))
    (logits, grads), (logits16, grads16) = results["float32"], results["bfloat16"]
    assert np.abs(logits16 - logits).max() < 0.03 * np.abs(logits).max()
    assert grads @ grads16 / np.linalg.norm(grads) / np.linalg.norm(grads16) > 0.995
    assert np.linalg.norm(grads16) == pytest.approx(np.linalg.norm(grads), rel=0.05)


def test_frozen_matrices_are_held_in_the_dtype_of_the_computation() -> None:
    config = tiny.config({"model": {"dtype": "bfloat16"}, "tuning": {"method": "last_layers", "layers": 1}})
    system = tiny.system(config)
    before = Weights(*tiny.parts(system))
    held = hold_frozen(system, before)
    frozen = flatten_dict(held.frozen, sep="/")
    cast = {path for path, leaf in frozen.items() if leaf.dtype == jnp.bfloat16}
    assert cast == {"encoder/embeddings/word/embedding"} | {
        path for path in frozen if path.startswith("encoder/layers/0/") and path.endswith("kernel")
    }
    assert len(cast) == 7
    assert held.trainable is before.trainable
    assert {leaf.dtype for leaf in jax.tree.leaves(held.trainable)} == {jnp.dtype("float32")}
    exact = tiny.system(config.model_copy(update={"model": config.model.model_copy(update={"dtype": "float32"})}))
    for hold in (hold_frozen, hold_all):
        assert all(a is b for a, b in zip(*map(jax.tree.leaves, (hold(exact, before), before)), strict=True))


@pytest.mark.main_cases("roberta", "t5")
@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_predictions_from_rounded_weights_are_the_same_to_the_bit(name: str, quick_compiles: None) -> None:
    config = NETWORKS[name]
    system = tiny.system(config.model_copy(update={"model": config.model.model_copy(update={"dtype": "bfloat16"})}))
    weights = hold_frozen(system, Weights(*tiny.parts(system, 1.0)))
    tokens = system.formulation.encode(tiny.split().arguments[:8], tiny.split().labels[:8])
    step = jax.jit(make_eval_step(system._apply, system.network.tuning))
    batch = tiny.batch(system, tokens, 8)
    held = hold_all(system, weights)
    rounded = [leaf.dtype for leaf in jax.tree.leaves(held.trainable)].count(jnp.bfloat16)
    assert (rounded > 0) == (name in ("roberta", "deberta-v2"))  # elsewhere no matrix of a layer trains
    assert np.asarray(step(*weights[::-1], batch)).tobytes() == np.asarray(step(*held[::-1], batch)).tobytes()
