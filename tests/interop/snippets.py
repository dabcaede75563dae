"""The functions on a model card that make token ids, without the network and the example around them."""

from __future__ import annotations

from typing import Any

from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.interop.model_card import usage


def functions(file: str, tokenizer: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The names that the code in a file of `interop` defines before `predict`, for a tokenizer and settings."""
    code = usage(file, load="", note="", answer_logits="").split("```python\n")[1].split("def predict")[0]
    names: dict[str, Any] = {"tokenizer": tokenizer, "settings": settings, "categories": list(CATEGORIES)}
    exec(code, names)
    return names
