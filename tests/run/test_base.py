"""Where tokenizers come from: beside the weights, or where the config says, at the revision that it pins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import transformers

from jaxvalues.config import Config, parse_config
from jaxvalues.data.loading import load_split
from jaxvalues.errors import ConfigError
from jaxvalues.formulations import load_texts
from jaxvalues.run.base import Base, find_tokenizer


def config(**model: Any) -> Config:
    return parse_config({"model": {"path": "someone/model", "revision": "of the weights", **model}})


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ({}, ("FOLDER", None)),  # which was downloaded at its revision
        ({"tokenizer": "someone/words"}, ("someone/words", None)),
        ({"tokenizer": "someone/words", "tokenizer_revision": "abc"}, ("someone/words", "abc")),
    ],
)
def test_a_tokenizer_is_pinned_by_its_revision(
    model: dict[str, Any], asked: tuple[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def from_pretrained(name: str, revision: str | None = None, **_: Any) -> Any:
        calls.append((name.replace(str(tmp_path), "FOLDER"), revision))
        return tiny.tokenizer()

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", from_pretrained)
    one = config(**model)
    base = Base(tiny.ROBERTA, tmp_path, "weights")
    find_tokenizer(one, base, load_split("training", source="sample"), load_texts(one.formulation))
    assert calls == [asked]


def test_a_revision_belongs_to_a_tokenizer() -> None:
    with pytest.raises(ConfigError, match="`tokenizer_revision` belongs to `tokenizer`, which is not set"):
        config(tokenizer_revision="abc")
