"""The files of a tokenizer: checked before transformers reads them, written whole, and what tells two of them apart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvalues.config.reading import entry, read_json, user_path
from jaxvalues.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
_TEXTS = ("tokenizer_class", "tokenizer_type", "model_type")


def tokenizer_place(path: str | Path) -> str:
    """A folder of a tokenizer with `~` replaced, its JSON files checked; the name of one on the hub as it is.

    Raises UserError, which names the file, for one that is not JSON or that is no plain file.
    """
    folder = user_path(path)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, expected the folder of a tokenizer")
    if not folder.is_dir():
        return str(path)
    for name in _FILES:
        file = folder / name
        if file.exists() or file.is_symlink():
            content = read_json(file, "a file of a tokenizer")
            for key in _TEXTS if name == "tokenizer_config.json" else ():
                if content.get(key) is not None:
                    entry(content, key, str, file)
            if name == "tokenizer.json":
                entry(content, "model", dict, file)
    return str(folder)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the files of a tokenizer. Raises UserError where that is not possible."""
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # tokenizers, in Rust, raises plain exceptions for what the system refuses
        raise UserError(f"{folder}: the tokenizer cannot be written ({error})") from None


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """The sha256 of what decides how a tokenizer cuts texts: vocabulary, rules and special tokens."""
    rust = getattr(tokenizer, "backend_tokenizer", None)
    rules = {} if rust is None else json.loads(rust.to_str())
    for state in ("truncation", "padding"):  # of the last call, not of the tokenizer
        rules.pop(state, None)
    content = [type(tokenizer).__name__, rules or tokenizer.get_vocab(), tokenizer.special_tokens_map]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
