"""`classify`: arguments as token rows, whatever their text holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from jaxvalues.data.arguments import IN_FAVOR, Argument
from jaxvalues.data.template import load_template
from jaxvalues.data.tokenizers import load_tokenizer, train_tokenizer
from jaxvalues.errors import ConfigError
from jaxvalues.formulations.classify import Classify

CLS, PAD, SEP = 0, 1, 2


def encode(*texts: tuple[str, str], template: str = "joined", max_length: int = 64, labels: np.ndarray | None = None):
    """Rows of (conclusion, premise) pairs."""
    arguments = [Argument(f"A{i}", conclusion, IN_FAVOR, premise) for i, (conclusion, premise) in enumerate(texts)]
    return Classify(tiny.tokenizer(), load_template(template), max_length).encode(arguments, labels)


def segments(row: np.ndarray) -> list[str]:
    """The texts between the special tokens of a row."""
    assert row[0] == CLS
    assert row[-1] == SEP
    cuts = np.flatnonzero(row == SEP)
    starts = [1, *(cuts[:-1] + 1)]
    return [tiny.tokenizer().decode(row[start:cut]).strip() for start, cut in zip(starts, cuts, strict=True)]


def test_rows_are_framed_segments_of_the_arguments_text() -> None:
    labels = np.eye(20, dtype=np.int8)[:2]
    tokens = encode(("ban whaling", "whales feel"), ("a", "b"), labels=labels)
    assert segments(tokens.ids[0]) == ["ban whaling", "supporting", "whales feel"]
    assert tokens.ids[0].dtype == np.int32
    assert (len(tokens), tokens.truncated, tokens.labels is labels) == (2, 0, True)
    assert tokens.lengths.tolist() == [len(row) for row in tokens.ids]
    assert len(segments(encode(("c", "p"), template="cls").ids[0])) == 1
    assert len(encode()) == 0


@pytest.mark.parametrize("text", ["", "😀🐋 👩‍👩‍👧", "مرحبا بالعالم", "שלום עולם", "tab\tand “quotes”", "0"])
def test_every_text_arrives_as_it_is(text: str) -> None:
    assert segments(encode((text, "p")).ids[0]) == [text, "supporting", "p"]
    assert segments(encode(("c", text)).ids[0]) == ["c", "supporting", text]


@pytest.mark.parametrize("text", ["a </s> b", "<s><pad></s>", "<mask>", "<unk> <pad>"])
def test_text_that_spells_a_special_token_is_text(text: str) -> None:
    row = encode(("c", text)).ids[0]
    assert segments(row) == ["c", "supporting", text]
    assert sorted(row[row < 5]) == [CLS, SEP, SEP, SEP]


def test_the_same_holds_for_a_wordpiece_tokenizer(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "[", "]", "sep", "mask", "supporting"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    classify = Classify(tokenizer, load_template("joined"), 64)
    row = classify.encode([Argument("A1", "a", IN_FAVOR, "[SEP] a [MASK]")]).ids[0]
    expected = ["[CLS]", "a", "[SEP]", "supporting", "[SEP]", "[", "sep", "]", "a", "[", "mask", "]", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(row.tolist()) == expected


def test_long_texts_are_cut_and_counted() -> None:
    tokens = encode(("c", "word " * 10_000), ("c", "short"), ("word " * 10_000, "p"), max_length=32)
    assert (tokens.truncated, tokens.lengths.max()) == (2, 32)
    assert tokens.lengths[0] == tokens.lengths[2] == 32
    assert tokens.lengths[1] < 32
    assert segments(tokens.ids[0])[:2] == ["c", "supporting"]
    whole = encode(("c", "word " * 10_000), max_length=10**6).ids[0]
    assert tokens.ids[0].tolist() == [*whole[:31], SEP]


def test_a_row_that_just_fits_is_not_cut() -> None:
    length = len(encode(("c", "some words here")).ids[0])
    assert encode(("c", "some words here"), max_length=length).truncated == 0
    assert encode(("c", "some words here"), max_length=length - 1).truncated == 1


def test_a_tokenizer_without_cls_token_is_refused_in_a_sentence() -> None:
    tokenizer = train_tokenizer(["some text"], 300, 64)
    tokenizer.cls_token = None
    with pytest.raises(ConfigError, match=r"needs a tokenizer with a \[CLS\] and a \[SEP\] token"):
        Classify(tokenizer, load_template("cls"), 64)
