"""The machine that something was measured on, and how busy it was."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("jaxvalues", "jax", "jaxlib", "flax", "torch", "transformers", "peft")


def describe_machine(load_before: Sequence[float]) -> dict[str, Any]:
    """Processor, system, versions of packages, and the load before and after (see `os.getloadavg`)."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "load_before": list(load_before),
        "load_after": list(os.getloadavg()),
    }


def processor() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def machine_in_words(machine: dict[str, Any]) -> str:
    """The machine in one line: processor, cores, load, versions."""
    versions = ", ".join(f"{name} {found}" for name, found in machine.get("versions", {}).items())
    load = machine["load_before"][0]
    said = f"{machine['processor']}, {machine['cores']} cores, load {load:.1f} before the start"
    return f"{said}; Python {machine['python']}" + (f", {versions}" if versions else "")


def warn_if_busy(machine: dict[str, Any], print_line: Any) -> None:
    """Say that other work ran on the machine, if it did."""
    load = machine["load_before"][0]
    if load > 1:
        print_line(f"The machine was busy (load {load:.1f} before the start): read ratios, not seconds.")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
