"""Eight simulated devices on one CPU for every test, set before jax starts; and where the real data lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="module")
def quick_compiles() -> Iterator[None]:
    """Compiling is most of the time of many tests, which do without XLA's costly optimizations."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the published TSV files (JAXVALUES_DATA, or ../shared/valueeval23); skips without it."""
    default = Path(__file__).parents[2] / "shared" / "valueeval23"
    folder = Path(os.environ.get("JAXVALUES_DATA", default))
    if not (folder / "arguments-training.tsv").is_file():
        pytest.skip(f"the real data is not at {folder}; JAXVALUES_DATA names its folder")
    return folder
