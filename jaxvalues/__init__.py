"""jaxvalues: fine-tuning and prompting language models to detect the human values behind arguments, in JAX and Flax."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("jaxvalues")

# Public names and where they live, imported when first used so that `import jaxvalues` is fast.
_PUBLIC = {
    "Config": "jaxvalues.config",
    "combine_runs": "jaxvalues.ensemble",
    "compare": "jaxvalues.study.compare",
    "compare_files": "jaxvalues.evaluation.comparison",
    "export_hf": "jaxvalues.interop.to_hf",
    "import_hf": "jaxvalues.interop.from_hf",
    "load_config": "jaxvalues.config",
    "load_study": "jaxvalues.study.files",
    "load_language_model": "jaxvalues.run.language_model",
    "load_model": "jaxvalues.models",
    "load_split": "jaxvalues.data.loading",
    "predict": "jaxvalues.run.predict",
    "score": "jaxvalues.evaluation.official",
    "score_files": "jaxvalues.evaluation.scoring",
    "step_memory": "jaxvalues.run.step_memory",
    "train": "jaxvalues.ensemble",
    "ConfigError": "jaxvalues.errors",
    "UserError": "jaxvalues.errors",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jaxvalues' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
