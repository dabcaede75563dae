"""Measurements with a task of their own: `jaxvalues bench --preset NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxvalues.bench.compiling import NETWORKS, compiling, config_of
from jaxvalues.bench.feed import TINY, feed
from jaxvalues.bench.measure import check_file
from jaxvalues.bench.sweep import GPT2_PROMPT, sweep
from jaxvalues.config import Config, load_config, parse_config
from jaxvalues.config.trees import apply_override
from jaxvalues.config.writing import write_json
from jaxvalues.errors import ConfigError

PRESETS = ("compile", "sweep", "feed")


def run_preset(
    preset: str,
    console: Console,
    *,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    networks: Sequence[str] = (),
    json_file: Path | None = None,
) -> dict[str, Any]:
    """Measure a preset on its own config, or on that of `file`, with `overrides`; write JSON if asked.

    `networks` are those of the preset `compile` (none: all), which writes after each of them. Raises ConfigError for a
    preset or network that there is not.
    """
    if preset not in PRESETS:
        raise ConfigError(f"--preset is `{preset}`, expected one of {', '.join(PRESETS)}")
    if networks and (preset != "compile" or file is not None):
        raise ConfigError("--network belongs to --preset compile without a config file")
    for name in networks:
        if name not in NETWORKS:
            raise ConfigError(f"--network is `{name}`, expected one of {', '.join(NETWORKS)}")
    if json_file is not None:
        check_file("--json", json_file)
    if file is not None:
        configs = [load_config(file, tuple(overrides))]
    elif preset == "compile":
        configs = [_changed(config_of(name), overrides) for name in networks or NETWORKS]
    else:
        configs = [_changed(parse_config(GPT2_PROMPT if preset == "sweep" else TINY), overrides)]

    def keep(result: dict[str, Any]) -> None:
        if json_file is not None:
            write_json(json_file, result)

    if preset == "compile":
        result = compiling(configs, console, keep)
    else:
        result = (sweep if preset == "sweep" else feed)(configs[0], console)
        keep(result)
    if json_file is not None:
        console.print(f"Everything measured is in {json_file}.", highlight=False, markup=False, emoji=False)
    return result


def _changed(config: Config, overrides: Sequence[str]) -> Config:
    tree = config.model_dump(mode="json")
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree)
