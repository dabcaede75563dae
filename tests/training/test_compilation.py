"""Compiling once: counted by jax itself, not by our own book-keeping; and the cache on disk."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from rich.console import Console

from jaxvalues.config import RuntimeConfig
from jaxvalues.data.batches import Tokens
from jaxvalues.errors import UserError
from jaxvalues.run.ahead import compiling_ahead
from jaxvalues.run.base import fit_to_tokenizer
from jaxvalues.run.console import RunConsole
from jaxvalues.run.prediction import likelihood_logits
from jaxvalues.run.state import restart, training_stages
from jaxvalues.run.system import System, Weights
from jaxvalues.run.watch import Watch
from jaxvalues.training.checkpoints import Checkpoints
from jaxvalues.training.compilation import Executables, Programs, enable_cache
from jaxvalues.training.loop import Loop
from jaxvalues.training.metrics import NoMetrics
from jaxvalues.training.optimizer import Hyperparameters, make_hyperparameters
from jaxvalues.training.record import LoopState, Notes, Record, Series

COMPILED = "/jax/core/compile/backend_compile_duration"


@contextmanager
def counting() -> Iterator[list[str]]:
    """Collects the names of all functions that XLA compiles meanwhile, whoever asks for them."""
    compiled: list[str] = []

    def listen(event: str, _: float, **about: object) -> None:
        if event == COMPILED:
            compiled.append(str(about.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_the_counter_counts() -> None:
    with counting() as compiled:
        jax.jit(lambda x: x + 1)(jnp.ones(3))
        jax.jit(lambda x: x + 2)(jnp.ones(3))
    assert len(compiled) >= 2


@pytest.fixture(scope="module")
def run(quick_compiles: None) -> tiny.Run:
    """A run with two batch shapes, of one layer."""
    layer = {"config": {**tiny.ROBERTA, "num_hidden_layers": 1}}
    data = {"buckets": [36, 44], "max_length": 44}
    training = {"batch_size": 8, "epochs": 4, "evaluate_every": 25, "checkpoint_every": 40}
    pooling = {"pooling": {"over": "mean"}}
    return tiny.Run(tiny.config({"model": layer, "data": data, "training": training, "formulation": pooling}))


@pytest.mark.slow
def test_a_hundred_steps_with_evaluations_compile_each_function_once_a_shape(run: tiny.Run, tmp_path: Path) -> None:
    evaluated = []

    def evaluate(trainable: object, _: object) -> dict[str, float]:
        logits = likelihood_logits(run.system, Weights(run.frozen, trainable), run.tokens)
        evaluated.append(logits)
        return {"loss": 0.0, "official_f1": float(np.abs(logits).mean())}

    series = Series(Checkpoints(tmp_path / "resume"), Checkpoints(tmp_path / "chosen"))
    notes = Notes(run.system.config, NoMetrics(), Console(quiet=True), LoopState())
    loop = Loop(
        config=run.system.config, batches=run.batches, restart=lambda state: restart(run.system, state),
        evaluate=evaluate, record=Record(notes, series, run.system.segments), console=Console(quiet=True),
        stages=training_stages(run.system, run.batches.steps_per_epoch, run.tokens.labels),
    )  # fmt: skip
    assert loop.total >= 100
    with (
        counting() as compiled,
        compiling_ahead(run.system, loop.stages, run.batches, run.tokens),
    ):
        started = {step: set(step.started) for step in (run.system.train_step, run.system.eval_step)}
        loop.run(run.state, run.frozen, run.system.mesh)
    series.resume.close()
    series.chosen.close()
    assert len(evaluated) >= 5
    assert run.batches.lengths() == [36, 44]
    assert len(run.system.train_step) == len(run.system.eval_step) == 2
    assert len(compiled) == 4, compiled
    for step, shapes in started.items():  # what compiled ahead is what the run met
        assert shapes == set(step.compiled)
        assert step.started == {}
    with compiling_ahead(run.system, loop.stages, run.batches, run.tokens, step=loop.total):
        assert run.system.train_step.started == {}


def test_predicting_compiles_once_for_each_length(run: tiny.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lengths after the first in a thread, while it goes on; nothing again the next time, or if it ends early."""
    run.restart()
    fresh, weights = tiny.system(run.system.config), Weights(run.frozen, run.state.trainable)
    begun, original = [], Executables.start

    def start(self: Executables, pool: object, shape: tuple[int, ...], *args: object) -> None:
        begun.append(shape)
        original(self, pool, shape, *args)

    monkeypatch.setattr(Executables, "start", start)
    with counting() as compiled:
        logits = likelihood_logits(fresh, weights, run.tokens)
    assert len(begun) == 1
    assert len(fresh.eval_step) == 2
    assert len(compiled) == 2, compiled
    with counting() as compiled:
        np.testing.assert_array_equal(likelihood_logits(fresh, weights, run.tokens), logits)
        assert likelihood_logits(fresh, weights, run.tokens, Watch(stop=lambda: True)) is None
    assert compiled == []
    assert len(begun) == 1


def test_each_run_hears_of_what_it_compiles(run: tiny.Run) -> None:
    """Of programs that runs share, the later one hears of the shapes that the first did not meet."""
    config, programs = run.system.config, Programs()
    known, heard = tiny.tokenizer(), ([], [])
    for said in heard:
        system = System(
            config,
            fit_to_tokenizer(config.model.config, known, True),
            known,
            tiny.one_device(),
            announce=said.append,
            programs=programs,
        )
        run.restart()
        weights = Weights(run.frozen, run.state.trainable)
        shortest = Tokens(tuple(sorted(run.tokens.ids, key=len)[:4]), None)
        likelihood_logits(system, weights, run.tokens if said is heard[1] else shortest)
    assert [len(said) for said in heard] == [1, 1]


def test_another_rate_decay_clipping_schedule_length_or_seed_compiles_nothing(run: tiny.Run) -> None:
    changes = {
        "learning_rate": 5e-4, "weight_decay": 0.3, "layer_decay": 0.5, "clip_norm": None, "warmup": 0.5,
    }  # fmt: skip
    config = run.system.config.optimizer
    batches = list(islice(run.batches.starting_at(0), 4))
    loss = run.hyper.loss

    def hyper(total: int = 100, seed: int = 0, **change: object) -> Hyperparameters:
        return make_hyperparameters(config.model_copy(update=change), total, seed, loss=loss)

    hypers = {"base": run.hyper, "seed": hyper(seed=1), "total": hyper(total=10)}
    hypers |= {key: hyper(**{key: value}) for key, value in changes.items()}
    hypers["label_smoothing"] = run.hyper._replace(loss=loss._replace(label_smoothing=np.float32(0.3)))
    run.restart()
    for batch in batches:
        run.step(batch)  # both shapes are compiled
    ends = {}
    for name, hyper in hypers.items():
        run.restart()
        with counting() as compiled:
            for batch in batches:
                run.step(batch, hyper)
        assert compiled == [], name
        ends[name] = np.asarray(run.state.trainable["encoder"]["layers"]["0"]["mlp"]["up"]["kernel"])
    assert len({end.tobytes() for end in ends.values()} - {ends["base"].tobytes()}) == len(hypers) - 2
    # clip_norm: null differs only where gradients are longer than 1, which they are not here


def test_logits_follow_the_rows_whatever_order_they_come_in(run: tiny.Run) -> None:
    run.restart()
    expected = likelihood_logits(run.system, Weights(run.frozen, run.state.trainable), run.tokens)
    order = np.random.default_rng(0).permutation(len(run.tokens))[:100]
    shuffled = Tokens(tuple(run.tokens.ids[i] for i in order), None)
    with counting() as compiled:
        logits = likelihood_logits(run.system, Weights(run.frozen, run.state.trainable), shuffled)
    assert compiled == []
    np.testing.assert_allclose(logits, expected[order], atol=1e-6)
    assert np.ptp(expected, axis=0).min() > 1e-3  # the rows do differ
    empty = likelihood_logits(run.system, Weights(run.frozen, run.state.trainable), Tokens((), None))
    assert empty.shape == (0, 20)
    assert (
        likelihood_logits(run.system, Weights(run.frozen, run.state.trainable), shuffled, Watch(stop=lambda: True))
        is None
    )


def test_an_executable_never_compiles_again_behind_ones_back() -> None:
    announced = []
    double = Executables("double", jax.jit(lambda x: x * 2), announced.append)
    assert double((3,), jnp.ones(3)).tolist() == [2, 2, 2]
    assert double((4,), jnp.ones(4)).tolist() == [2, 2, 2, 2]
    double((3,), jnp.ones(3))
    assert len(double) == len(announced) == 2
    assert double.seconds > 0
    assert str(announced[0]).startswith("double [3]: traced in ")
    with pytest.raises(TypeError):  # not what (3,) was compiled for
        double((3,), jnp.ones(5))


def test_what_compiles_in_a_thread_is_waited_for_and_announced_when_it_is_used() -> None:
    announced = []
    double = Executables("double", jax.jit(lambda x: x * 2), announced.append)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):  # the second time it is under way
            double.start(pool, (3,), jax.ShapeDtypeStruct((3,), jnp.float32))
    assert double.has((3,))
    assert (len(double), announced) == (0, [])
    ones = jnp.ones(3)
    with counting() as compiled:
        assert double((3,), ones).tolist() == [2, 2, 2]
    assert compiled == []
    assert len(double) == len(announced) == 1

    wrong = Executables("wrong", jax.jit(lambda x: x @ x))
    with ThreadPoolExecutor(1) as pool:
        wrong.start(pool, (2, 3), jax.ShapeDtypeStruct((2, 3), jnp.float32))
    with pytest.raises(TypeError, match="dot_general"):
        wrong((2, 3), jnp.ones((2, 3)))


CACHED = """
import sys, jax, jax.numpy as jnp
from jaxvalues.training.compilation import Executables, Programs, enable_cache
print(enable_cache(sys.argv[1]))
double = Executables("double", jax.jit(lambda x: x * 2 + 1), lambda new: print(new.from_cache, "cache" in str(new)))
double((3,), jnp.ones(3))
"""


@pytest.mark.slow
def test_a_second_process_finds_what_the_first_compiled(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "cache"
    command = [sys.executable, "-c", CACHED, str(folder)]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout.split()
        for _ in range(2)
    )
    assert first == [str(folder), "False", "False"]
    assert second == [str(folder), "True", "True"]


def test_a_home_that_is_read_only_means_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    before, default = jax.config.jax_enable_compilation_cache, RuntimeConfig().compilation_cache
    monkeypatch.setenv("HOME", "/proc/no/home")
    try:
        assert enable_cache(default) is None
        assert jax.config.jax_enable_compilation_cache is False
        screen = Console(file=io.StringIO(), width=200)
        RunConsole(screen).process(None, default)
        assert "are not kept, as nothing can be written in ~/.cache/jaxvalues/xla" in screen.file.getvalue()
        with pytest.raises(UserError, match=r"^runtime\.compilation_cache: /proc/no/cache cannot be used"):
            enable_cache("/proc/no/cache")
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


def test_the_cache_can_be_turned_off() -> None:
    before = jax.config.jax_enable_compilation_cache
    try:
        assert enable_cache(None) is None
        assert jax.config.jax_enable_compilation_cache is False
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
