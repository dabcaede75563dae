"""One way to run a training step, in a process of its own: what starting takes, and what a step takes then.

The process prints one JSON object. What was compiled, and what was read from a cache, is counted, not guessed: JAX says
so by its monitoring events, torch by its counters.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from jaxvalues.bench.task import Task
from jaxvalues.errors import UserError
from jaxvalues.training.memory import peak_bytes, reset_peak_memory

JAX = ("op by op", "jit", "jit + scan", "scan + remat", "warm cache", "loaded executable")
TORCH = ("torch eager", "torch.compile", "torch.compile, regional")
EAGER = {**dict.fromkeys(JAX, "op by op"), **dict.fromkeys(TORCH, "torch eager")}
"""What each way is compared with, to find the step from which on it is ahead."""
STEADY = 5  # steps after the first, at least
STEADY_SECONDS, MOST_SAMPLES = 2.0, 50

_DURATIONS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace_s",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower_s",
    "/jax/core/compile/backend_compile_duration": "compile_s",
}
_HITS, _MISSES = "/jax/compilation_cache/cache_hits", "/jax/compilation_cache/cache_misses"


class Events:
    """A block in which JAX's own events of compiling are counted and added up."""

    def __init__(self) -> None:
        self.counts: dict[str, float] = defaultdict(float)

    def _duration(self, event: str, seconds: float, **_: Any) -> None:
        if event in _DURATIONS:
            self.counts[_DURATIONS[event]] += seconds
            self.counts["executables"] += event.endswith("backend_compile_duration")

    def _event(self, event: str, **_: Any) -> None:
        self.counts["hits"] += event == _HITS
        self.counts["misses"] += event == _MISSES

    def __enter__(self) -> Events:
        import jax

        jax.monitoring.register_event_duration_secs_listener(self._duration)
        jax.monitoring.register_event_listener(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        import jax

        jax.monitoring.unregister_event_duration_listener(self._duration)
        jax.monitoring.unregister_event_listener(self._event)

    def result(self) -> dict[str, float]:
        names = ("trace_s", "lower_s", "compile_s", "executables", "hits", "misses")
        return {name: self.counts[name] for name in names}


def measure_jax(way: str, task: Task) -> dict[str, Any]:
    """The first step and the steps after it, in one of the ways of `JAX`. Weights and state are there before."""
    import jax

    from jaxvalues.bench.jaxvalues_contender import JaxvaluesContender
    from jaxvalues.data.batches import inputs_shape
    from jaxvalues.training.compilation import enable_cache
    from jaxvalues.training.sharding import place_batch

    contender = JaxvaluesContender(replace(task, cache=str(Path(task.cache) / "init")))
    jitted, batch = contender.system.train_step.jitted, place_batch(contender.batch, contender.system.mesh)
    args = (contender.state, contender.frozen, batch, contender.hyper)
    del contender.state
    cache, saved = enable_cache(str(Path(task.cache) / "steps")), Path(task.cache) / "executable"
    before = folder_bytes(cache)
    reset_peak_memory()
    start = time.perf_counter()
    with Events() as events:
        if way == "op by op":
            step = jitted.__wrapped__
        elif way == "loaded executable":
            from jax.experimental.serialize_executable import deserialize_and_load

            step = deserialize_and_load(*pickle.loads(saved.read_bytes()))
        else:
            step = jitted.lower(*args).compile()
        state, metrics = step(*args)
        jax.block_until_ready(state)
        first = time.perf_counter() - start
    if way == "jit":
        from jax.experimental.serialize_executable import serialize

        saved.write_bytes(pickle.dumps(serialize(step)))

    def run() -> None:
        nonlocal state, metrics
        state, metrics = step(state, *args[1:])
        jax.block_until_ready(state)

    kept = saved.stat().st_size if way == "loaded executable" else folder_bytes(cache)
    described = contender.describe()
    return {
        **events.result(),
        "first_s": first,
        **steady(run),
        "cache_bytes": kept if way in ("warm cache", "loaded executable") else kept - before,
        "peak_bytes": peak_bytes(),
        "shape": list(inputs_shape(contender.batch)),
        **{key: described[key] for key in ("dtype", "platform", "device", "parameters")},
    }


def measure_torch(way: str, task: Task) -> dict[str, Any]:
    """The same with torch: eager, compiled as a whole, or its repeated blocks alone (regional compilation)."""
    import torch

    from jaxvalues.bench.torch_answer_contender import make_contender

    contender = make_contender(task)
    if way == "torch.compile":
        contender.call = torch.compile(contender.model)
    elif way == "torch.compile, regional":
        for block in repeated_blocks(contender.model):
            block.compile()
    reset_peak_memory()
    first = contender.run(1)
    counters, times = torch._dynamo.utils.counters, torch._dynamo.utils.compilation_time_metrics
    compiled = sum(sum(values) for name, values in times.items() if name.endswith("compile_inner"))
    stats = {"executables": counters["stats"]["unique_graphs"], "hits": counters["inductor"]["fxgraph_cache_hit"]}
    described = contender.describe()
    return {
        "trace_s": None,
        "lower_s": None,
        "compile_s": compiled or None,
        **stats,
        "misses": counters["inductor"]["fxgraph_cache_miss"],
        "first_s": first,
        **steady(lambda: contender.run(1)),
        "cache_bytes": folder_bytes(Path(task.cache)),
        "peak_bytes": contender.peak_bytes(),
        **{key: described[key] for key in ("dtype", "platform", "device", "parameters")},
    }


def repeated_blocks(model: Any) -> list[Any]:
    """The layers of a network: the members of its longest module lists."""
    import torch

    lists = [one for one in model.modules() if isinstance(one, torch.nn.ModuleList)]
    longest = max(map(len, lists))
    return [block for one in lists if len(one) == longest for block in one]


def steady(run: Callable[[], None]) -> dict[str, Any]:
    """Samples of a step, after the first one: `STEADY` of them, and more where they are short; their median."""
    samples: list[float] = []
    while len(samples) < STEADY or (sum(samples) < STEADY_SECONDS and len(samples) < MOST_SAMPLES):
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return {"steady_s": median(samples), "samples_s": samples}


def folder_bytes(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Measure one way on one task, and print the result as the last line."""
    way, task = sys.argv[1], Task(**json.loads(sys.argv[2]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries goes to stderr
    try:
        result = measure_jax(way, task) if way in JAX else measure_torch(way, task)
    except UserError as error:
        sys.exit(str(error))
    print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
