"""Defaults that depend on the devices here, or on other keys of the config."""

from __future__ import annotations

import jax

from jaxvalues.config import Config


def resolve(config: Config) -> Config:
    """The config with every such default written out; a run keeps it wherever it is resumed."""
    model = config.model.model_copy(update={"dtype": resolve_dtype(config.model.dtype)})
    return config.explicit().model_copy(update={"model": model})


def resolve_dtype(dtype: str) -> str:
    """`auto` is bfloat16 on accelerators and float32 on CPU, where bfloat16 is no faster."""
    if dtype != "auto":
        return dtype
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"
