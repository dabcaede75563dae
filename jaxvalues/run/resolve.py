"""Defaults that depend on the devices here, or on other keys of the config."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from jaxvalues.config import Config
from jaxvalues.errors import UserError
from jaxvalues.run.probe import cpu_dtype
from jaxvalues.run.provenance import read_run_config
from jaxvalues.training.processes import from_main


def resolve(config: Config) -> Config:
    """The config with every such default written out; a run keeps it wherever it is resumed."""
    dtype = config.model.dtype
    if dtype == "auto" and config.model.endpoint is None:  # nothing is computed here
        dtype = from_main("the dtype of the computation", lambda: _dtype_of_run(config) or resolve_dtype("auto"))
    return _in_dtype(config.explicit(), dtype)


def with_one_dtype(runs: Sequence[Config]) -> list[Config]:
    """The configs of runs that will be combined, computed in one dtype: `auto` is decided once, for all of them.

    It is that of the first run that is there, which may have begun on another machine.
    """
    open_ones = [one for one in runs if one.model.dtype == "auto" and one.model.endpoint is None]
    if not open_ones:
        return list(runs)
    dtype = from_main(
        "the dtype of the runs",
        lambda: next(filter(None, map(_dtype_of_run, open_ones)), None) or resolve_dtype("auto"),
    )
    return [_in_dtype(one, dtype) if one in open_ones else one for one in runs]


def _in_dtype(config: Config, dtype: str) -> Config:
    return config.model_copy(update={"model": config.model.model_copy(update={"dtype": dtype})})


def resolve_dtype(dtype: str) -> str:
    """`auto` is bfloat16 on accelerators, and on CPU what is faster there (`probe.cpu_dtype`)."""
    if dtype != "auto":
        return dtype
    return cpu_dtype() if jax.default_backend() == "cpu" else "bfloat16"


def _dtype_of_run(config: Config) -> str | None:
    """The dtype of the run that the folder of the config holds; None if it holds none."""
    try:
        dtype = read_run_config(config.folder).model.dtype
    except UserError:  # no run is there; one that is damaged is refused when the folder is opened
        return None
    return None if dtype == "auto" else dtype
