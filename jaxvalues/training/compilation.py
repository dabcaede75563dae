"""Ahead-of-time compilation: each function once per batch shape, timed and counted, with an on-disk cache."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxvalues.config import RuntimeConfig
from jaxvalues.config.reading import os_problem, user_path
from jaxvalues.config.writing import check_writable
from jaxvalues.errors import UserError

CACHE_HIT = "/jax/compilation_cache/cache_hits"


def enable_cache(folder: str | None) -> Path | None:
    """Use `folder` as JAX's persistent compilation cache; None disables it. Returns the folder, None without a cache.

    Where the default folder cannot be written to, as in a home that is read-only, there is no cache. Raises UserError
    for any other folder that cannot be written to.
    """
    path = None if folder is None else _cache_folder(folder)
    if path is None:
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # JAX initialises its cache at the first compile, which may already be over
    return path


def _cache_folder(folder: str) -> Path | None:
    is_default = folder == RuntimeConfig().compilation_cache
    try:
        path = user_path(folder)
        path.mkdir(parents=True, exist_ok=True)
        check_writable(path, "the folder")
    except (UserError, OSError) as error:
        if is_default:
            return None
        said = os_problem(error) if isinstance(error, OSError) else str(error)
        raise UserError(f"runtime.compilation_cache: {folder} cannot be used ({said}); set another, or null") from None
    return path


@dataclass(frozen=True)
class Compiled:
    """One executable, the batch shape it is for, and how long tracing and compiling took, in seconds."""

    name: str
    shape: tuple[int, ...]
    trace_s: float
    compile_s: float
    from_cache: bool
    run: Callable[..., Any]

    def __str__(self) -> str:
        how = "read from the cache" if self.from_cache else "compiled"
        shape = " × ".join(map(str, self.shape))
        return f"{self.name} [{shape}]: traced in {self.trace_s:.1f} s, {how} in {self.compile_s:.1f} s"


class Executables:
    """A jitted function, compiled ahead of time for each batch shape that it is called with.

    An executable cannot retrace: other shapes, dtypes or shardings than those it was compiled for are an error. So
    `len(executables)` is the number of compiles in the run. `announce` is called with each new executable.
    """

    def __init__(self, name: str, jitted: Any, announce: Callable[[Compiled], None] = lambda _: None) -> None:
        self.name, self.jitted, self.announce = name, jitted, announce
        self.compiled: dict[Hashable, Compiled] = {}
        self.started: dict[Hashable, Future[Compiled]] = {}

    def __len__(self) -> int:
        return len(self.compiled)

    def has(self, shape: tuple[int, ...]) -> bool:
        """Whether it is compiled for batches of this shape."""
        return shape in self.compiled or (shape in self.started and self.started[shape].done())

    def begun(self, shape: tuple[int, ...]) -> bool:
        """Whether it is compiled for batches of this shape, or that is under way."""
        return shape in self.compiled or shape in self.started

    @property
    def seconds(self) -> float:
        """Seconds spent on tracing and compiling so far."""
        return sum(one.trace_s + one.compile_s for one in self.compiled.values())

    def start(self, pool: Executor, shape: tuple[int, ...], *args: Any) -> None:
        """Compile for `args` (arrays or ShapeDtypeStructs) in a thread of `pool`, unless that is done or under way."""
        if not self.begun(shape):
            self.started[shape] = pool.submit(compile_once, self.name, shape, self.jitted, *args)

    def __call__(self, shape: tuple[int, ...], *args: Any) -> Any:
        """Run on `args`, whose batch has `shape`. A new shape is compiled first, or waited for if that is under way."""
        if shape not in self.compiled:
            under_way = self.started.pop(shape, None)
            if under_way is None or under_way.cancelled():
                self.compiled[shape] = compile_once(self.name, shape, self.jitted, *args)
            else:
                self.compiled[shape] = under_way.result()
            self.announce(self.compiled[shape])
        return self.compiled[shape].run(*args)


class Programs:
    """The compiled steps of several runs. Runs share a step if nothing that affects the program differs.

    The key may also hold jitted functions that run once at the start; these are not counted.
    """

    def __init__(self) -> None:
        self.held: dict[Hashable, dict[str, Any]] = {}

    def __len__(self) -> int:
        """The number of compiles of all steps."""
        held = (one for steps in self.held.values() for one in steps.values())
        return sum(len(one) for one in held if isinstance(one, Executables))

    def get(self, key: Hashable, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The steps stored under `key`; calls `make` if there are none."""
        if key not in self.held:
            self.held[key] = make()
        return self.held[key]


@contextmanager
def compile_threads(number: int) -> Iterator[Executor]:
    """A pool of threads to compile in. The end of the block gives up what has not begun, and waits for nothing."""
    pool = ThreadPoolExecutor(number, thread_name_prefix="compile")
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def compile_once(name: str, shape: tuple[int, ...], jitted: Any, *args: Any) -> Compiled:
    """Trace and compile `jitted` for `args` (arrays or ShapeDtypeStructs), and time both."""
    start = time.perf_counter()
    lowered = jitted.lower(*args)
    traced = time.perf_counter()
    with _CacheHits() as hits:
        compiled = lowered.compile()
    # A program that was compiled ahead refuses arrays of 4 bits on CPU (jax 0.10); jit takes them, and compiles again,
    # or reads the program from the cache.
    run = jitted if any(_is_below_a_byte(leaf) for leaf in jax.tree.leaves(args)) else compiled
    return Compiled(name, shape, traced - start, time.perf_counter() - traced, hits.count > 0, run)


def _is_below_a_byte(leaf: Any) -> bool:
    return "int4" in str(getattr(leaf, "dtype", ""))


class _CacheHits:
    """Context manager that counts hits of the persistent cache in its thread."""

    def __init__(self) -> None:
        self.count, self.thread = 0, threading.get_ident()

    def _listen(self, event: str, **_: Any) -> None:
        self.count += event == CACHE_HIT and threading.get_ident() == self.thread

    def __enter__(self) -> _CacheHits:
        jax.monitoring.register_event_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_listener(self._listen)
