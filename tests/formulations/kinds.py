"""Tokenizers of all kinds used for classification, built from the texts of the sample."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import sentencepiece
import tiny
from transformers import BertGenerationTokenizer, BertTokenizer, DebertaV2Tokenizer

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]


def wordpiece(folder: Path) -> Any:
    """A lower-casing BERT tokenizer with the sample's most frequent words and single letters."""
    counted = Counter(word for text in texts() for word in text.lower().split() if word.isalpha())
    letters = [chr(code) for code in range(33, 127)]
    words = [word for word, _ in counted.most_common(200) if len(word) > 1]
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *letters, *(f"##{one}" for one in letters), *words]))
    return BertTokenizer(str(folder / "vocab.txt"))


def byte_level(folder: Path) -> Any:
    """A RoBERTa tokenizer."""
    return tiny.tokenizer()


def unigram(folder: Path) -> Any:
    """A DeBERTa-v3 tokenizer: pieces with scores, including special tokens."""
    counted = Counter(word for text in texts() for word in text.split() if word.isalpha())
    pieces = [("▁", -4.0), *((chr(code), -6.0) for code in range(33, 127))]
    pieces += [(f"▁{word}", -3.0) for word, _ in counted.most_common(200)]
    return DebertaV2Tokenizer(vocab=[*((token, 0.0) for token in SPECIAL), *pieces])


def slow(folder: Path) -> Any:
    """A slow tokenizer, which runs in Python: sentencepiece BPE, whose training is deterministic."""
    pad, cls, sep, unknown, mask = SPECIAL
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts()), model_prefix=str(folder / "spm"), model_type="bpe", vocab_size=400,
        pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece=pad, bos_piece=cls, eos_piece=sep, unk_piece=unknown,
        user_defined_symbols=[mask], minloglevel=2,
    )  # fmt: skip
    return BertGenerationTokenizer(
        str(folder / "spm.model"), pad_token=pad, bos_token=cls, cls_token=cls, eos_token=sep, sep_token=sep,
        unk_token=unknown, mask_token=mask,
    )  # fmt: skip


KINDS = {kind.__name__: kind for kind in (wordpiece, byte_level, unigram, slow)}


def texts() -> list[str]:
    return [text for argument in tiny.split().arguments for text in (argument.conclusion, argument.premise)]
