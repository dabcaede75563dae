"""Where tokenizers come from: beside the weights, or where the config says, at the revision that it pins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from chat_templates import GEMMA, chat_tokenizer

from jaxvalues.config import Config, parse_config
from jaxvalues.data.loading import load_split
from jaxvalues.errors import ConfigError
from jaxvalues.formulations import load_texts
from jaxvalues.run.base import Base, find_base, find_tokenizer, fit_to_tokenizer


def config(**model: Any) -> Config:
    return parse_config({"model": {"path": "someone/model", "revision": "of the weights", **model}})


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ({}, []),  # the folder of the weights, which was downloaded at its revision
        ({"tokenizer": "someone/words"}, [("someone/words", None)]),
        ({"tokenizer": "someone/words", "tokenizer_revision": "abc"}, [("someone/words", "abc")]),
    ],
)
def test_a_tokenizer_is_pinned_by_its_revision(
    model: dict[str, Any], asked: list[tuple[str, str | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    tiny.tokenizer().save_pretrained(tmp_path)

    def snapshot_download(name: str, revision: str | None = None, **_: Any) -> str:
        calls.append((name, revision))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    one = config(**model)
    base = Base(tiny.ROBERTA, tmp_path, "weights")
    found = find_tokenizer(one, base, load_split("training", source="sample"), load_texts(one.formulation))
    assert calls == asked
    assert len(found) == len(tiny.tokenizer())


def test_a_revision_belongs_to_a_tokenizer() -> None:
    with pytest.raises(ConfigError, match="`tokenizer_revision` belongs to `tokenizer`, which is not set"):
        config(tokenizer_revision="abc")


def test_a_misspelt_setting_of_a_random_network_is_refused() -> None:
    def base(**config: Any) -> Base:
        return find_base(parse_config({"model": {"config": {**tiny.ROBERTA, **config}, "tokenizer": "x"}}).model, 0)

    assert base(hidden_dropout_prob=0.3, torch_dtype="float32", gradient_checkpointing=False).is_random
    for key, meant in (("num_hiden_layers", "num_hidden_layers"), ("hidden_dropout", "hidden_dropout_prob")):
        with pytest.raises(ConfigError, match=rf"model\.config: unknown key `{key}`, did you mean `{meant}`\?"):
            base(**{key: 0.3})


def test_a_network_needs_no_embedding_of_a_special_token_without_a_role() -> None:
    """Gemma 3's token of an image has the first id behind the table."""
    tokenizer = chat_tokenizer(GEMMA)
    size = len(tokenizer)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    assert fit_to_tokenizer({"vocab_size": size}, tokenizer, is_random=False)["vocab_size"] == size
    assert fit_to_tokenizer({}, tokenizer, is_random=True)["vocab_size"] == size + 1
    tokenizer.add_tokens(["word"])
    with pytest.raises(ConfigError, match=f"the tokenizer has {size + 2} tokens and the model only {size} embeddings"):
        fit_to_tokenizer({"vocab_size": size}, tokenizer, is_random=False)
