"""Compiling: each function once per batch shape, ahead of time, timed, counted, and kept in an on-disk cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxvalues.errors import UserError

CACHE_HIT = "/jax/compilation_cache/cache_hits"


def enable_cache(folder: str | None) -> Path | None:
    """Keep programs compiled from now on in `folder` (None: do not). Raises UserError if it cannot be made."""
    if folder is None:
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    path = Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"runtime.compilation_cache: the folder {path} cannot be made ({error.strerror}); give another, or null"
        ) from None
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # JAX settles on its cache at the first compile, which may have been before
    return path


@dataclass(frozen=True)
class Compiled:
    """One executable and what it took to get it."""

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
    """A jitted function compiled ahead of time for each batch shape it meets.

    An executable cannot retrace: other shapes, dtypes or shardings than it was compiled for are an error, so
    `len(executables)` is the number of compiles of the whole run. `announce` is called with each new one.
    """

    def __init__(self, name: str, jitted: Any, announce: Callable[[Compiled], None] = lambda _: None) -> None:
        self.name, self.jitted, self.announce = name, jitted, announce
        self.compiled: dict[Hashable, Compiled] = {}

    def __len__(self) -> int:
        return len(self.compiled)

    def has(self, shape: tuple[int, ...]) -> bool:
        """Whether it is compiled for batches of this shape."""
        return shape in self.compiled

    @property
    def seconds(self) -> float:
        """Time spent tracing and compiling so far."""
        return sum(one.trace_s + one.compile_s for one in self.compiled.values())

    def __call__(self, shape: tuple[int, ...], *args: Any) -> Any:
        """Run on `args`, whose batch has `shape`; compiles when the shape is new."""
        if shape not in self.compiled:
            self.compiled[shape] = compile_once(self.name, shape, self.jitted, *args)
            self.announce(self.compiled[shape])
        return self.compiled[shape].run(*args)


class Programs:
    """The compiled steps of several runs: those that agree in everything that decides a program share it.

    Jitted functions that run once at the start can be held beside the steps; they are not counted.
    """

    def __init__(self) -> None:
        self.held: dict[Hashable, dict[str, Any]] = {}

    def __len__(self) -> int:
        """Number of compiles of all steps."""
        held = (one for steps in self.held.values() for one in steps.values())
        return sum(len(one) for one in held if isinstance(one, Executables))

    def get(self, key: Hashable, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The steps held under `key`, made now if there are none."""
        if key not in self.held:
            self.held[key] = make()
        return self.held[key]


def compile_once(name: str, shape: tuple[int, ...], jitted: Any, *args: Any) -> Compiled:
    """Trace and compile `jitted` for `args` (arrays or ShapeDtypeStructs), timing both."""
    start = time.perf_counter()
    lowered = jitted.lower(*args)
    traced = time.perf_counter()
    with _CacheHits() as hits:
        run = lowered.compile()
    return Compiled(name, shape, traced - start, time.perf_counter() - traced, hits.count > 0, run)


class _CacheHits:
    """Counts hits of the persistent cache while it is open."""

    def __init__(self) -> None:
        self.count = 0

    def _listen(self, event: str, **_: Any) -> None:
        self.count += event == CACHE_HIT

    def __enter__(self) -> _CacheHits:
        jax.monitoring.register_event_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_listener(self._listen)
