"""Compares a loaded tokenizer with the file it was loaded from, and repairs it where they differ.

transformers 5 builds many tokenizers from the vocabulary alone, with the normalizer that their class has. This loses
what the file says: DeBERTa-v2 and v3 lose the NFKC normalization of their `spm.model`, so that a no-break space or a
full-width letter becomes an unknown token, and with it the word. `tokenizer.json` is the source where there is one,
else the sentencepiece model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvalues.config.reading import read_json
from jaxvalues.errors import UserError, name_list

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"

PROBE = (
    "fast food", "We should ban it", "ABC abc", "  two  blanks  ", "tab\there\nline",
    "fast\xa0food", "fast\u3000food", "fast\u2009food", "zero\u200bwidth", "\ufeffmark",
    "\uff26\uff41\uff53\uff54", "\ufb01ght", "x\xb2", "\xbd", "\u2460", "\u2122", "e\u0301t\xe9",
)  # fmt: skip
"""Words, and characters that normalizations map to others: blanks, compatibility characters, combining accents."""

# Settings of a tokenizer_config.json with which a tokenizer may differ from its tokenizer.json.
_OPTIONS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "split_by_punct")

Tokens = list[str | None]  # None: one or several unknown tokens in a row
Tokenize = Callable[[str], Tokens]


def check_files(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Raises UserError unless the folder has the files of this tokenizer: without them transformers invents one."""
    names = [name for name in type(tokenizer).vocab_files_names.values() if name != FILE]
    missing = [name for name in names if not (folder / name).is_file()] if names else [FILE]
    found = tokenizer.init_kwargs.get("vocab_file")
    if (folder / FILE).is_file() or not missing or (len(names) < 2 and found and Path(str(found)).is_file()):
        return
    raise UserError(
        f"{folder}: the folder has no {FILE} and no {name_list(missing)}, so it has no tokenizer: add the files, or "
        "set model.tokenizer to a folder or hub id that has them"
    )


def as_in_source(tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer, or one that is repaired so that it splits texts as its source in `folder` does.

    Raises UserError for one that cannot be repaired.
    """
    if (folder / FILE).is_file():
        return _as_in_file(tokenizer, folder)
    if (model := _sentencepiece_file(tokenizer, folder)) is not None:
        return _as_in_sentencepiece(tokenizer, model)
    return tokenizer  # WordPiece or byte-level BPE from a plain list of tokens, which has no normalizer to lose


def _as_in_file(tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer

    source = Tokenizer.from_file(str(folder / FILE))

    def expected(text: str) -> Tokens:
        ids = source.encode(text, add_special_tokens=False).ids
        return _fused([source.id_to_token(id) for id in ids], tokenizer.unk_token)

    found = _tokenize(tokenizer)
    differs = [text for text in PROBE if found(text) != expected(text)]
    if _has_options(folder):  # they may differ as asked for, but not by unknown tokens
        differs = [text for text in differs if found(text).count(None) > expected(text).count(None)]
    return _with_backend(tokenizer, source) if differs else tokenizer


def _as_in_sentencepiece(tokenizer: PreTrainedTokenizerBase, model: Path) -> PreTrainedTokenizerBase:
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(model))
    lowers = getattr(tokenizer, "do_lower_case", False)

    def expected(text: str) -> Tokens:
        ids = pieces.encode(text.lower() if lowers else text)
        return _fused([None if id == pieces.unk_id() else pieces.id_to_piece(id) for id in ids], None)

    def problem(tokenizer: PreTrainedTokenizerBase) -> str | None:
        found = _tokenize(tokenizer)
        return next((text for text in PROBE if found(text) != expected(text)), None)

    if problem(tokenizer) is None:
        return tokenizer
    if tokenizer.is_fast:
        tokenizer = _with_backend(tokenizer, _normalized_backend(tokenizer, model, lowers))
    if (text := problem(tokenizer)) is not None:
        raise UserError(
            f"{model}: the {type(tokenizer).__name__} that transformers makes of it splits {text!r} otherwise than "
            f"sentencepiece does: give a folder with a {FILE}"
        )
    return tokenizer


def _normalized_backend(tokenizer: Any, model: Path, lowers: bool) -> Any:
    """The backend of a tokenizer with the normalizer of a sentencepiece model."""
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import Regex, Tokenizer, normalizers

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.read_bytes())
    spec = proto.normalizer_spec
    parts = [normalizers.Lowercase()] if lowers else []
    if spec.precompiled_charsmap:
        parts.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        parts += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.normalizer = normalizers.Sequence(parts)
    return backend


def _with_backend(tokenizer: PreTrainedTokenizerBase, backend: Any) -> PreTrainedTokenizerBase:
    """A tokenizer with the special tokens of another one. Its class keeps the backend as it is when it is reloaded."""
    from transformers import PreTrainedTokenizerFast

    named = tokenizer.special_tokens_map
    extra = [token for token in tokenizer.all_special_tokens if token not in named.values()]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        extra_special_tokens=extra,
        chat_template=tokenizer.chat_template,
        **{name: token for name, token in named.items() if isinstance(token, str)},
    )


def _tokenize(tokenizer: PreTrainedTokenizerBase) -> Tokenize:
    def tokenize(text: str) -> Tokens:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return _fused(tokenizer.convert_ids_to_tokens(ids), tokenizer.unk_token)

    return tokenize


def _fused(tokens: list[str | None], unknown: str | None) -> Tokens:
    """The tokens with None for the unknown one, and for several in a row."""
    named = [None if token == unknown else token for token in tokens]
    return [token for i, token in enumerate(named) if token is not None or i == 0 or named[i - 1] is not None]


def _sentencepiece_file(tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path | None:
    names = [name for name in type(tokenizer).vocab_files_names.values() if name.endswith(".model")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _has_options(folder: Path) -> bool:
    path = folder / CONFIG
    return path.is_file() and any(key in _OPTIONS for key in read_json(path, "the settings of a tokenizer"))
