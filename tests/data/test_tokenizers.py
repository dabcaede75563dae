"""The trained tokenizer: the same in every process, lossless, and readable again from a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jaxvalues.data.tokenizers import load_tokenizer, pad_id, train_tokenizer
from jaxvalues.errors import UserError

TEXTS = [
    f"We should ban {thing} because it harms people, “{thing}s” above all 😀" for thing in ("whaling", "zoo", "ads")
]

TRAIN = f"""
from jaxvalues.data.tokenizers import train_tokenizer
print(train_tokenizer({TEXTS!r} * 50, 400, 64).backend_tokenizer.to_str())
"""


def test_training_gives_the_same_tokenizer_in_every_process() -> None:
    here = train_tokenizer(TEXTS * 50, 400, 64).backend_tokenizer.to_str()
    there = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, encoding="utf-8", check=True).stdout
    assert here == there.strip("\n")
    assert here != train_tokenizer(TEXTS[:2] * 50, 400, 64).backend_tokenizer.to_str()


def test_any_text_survives_even_in_letters_it_was_not_trained_on() -> None:
    tokenizer = train_tokenizer(TEXTS, 350, 64)
    for text in ("zoo keepers 😀🐋", "مرحبا بالعالم", "שלום", "naïve “quotes”", "日本"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids).strip() == text


def test_special_tokens_have_robertas_ids() -> None:
    tokenizer = train_tokenizer(TEXTS, 350, 64)
    assert tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]) == [0, 1, 2, 3, 4]
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id, pad_id(tokenizer)) == (0, 2, 1)
    assert tokenizer("zoo")["input_ids"][0] == 0


def test_it_reads_back_from_its_folder_as_itself(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 350, 64)
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert (pad_id(again), again.cls_token_id, again.sep_token_id) == (1, 0, 2)


def test_batches_are_filled_with_the_end_token_where_there_is_no_padding_token() -> None:
    tokenizer = train_tokenizer(TEXTS, 350, 64)
    tokenizer.pad_token = None
    assert pad_id(tokenizer) == tokenizer.eos_token_id == 2


def test_a_folder_without_tokenizer_is_named_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"the tokenizer could not be loaded .*; set model.tokenizer to another folder or hub id"
    ) as e:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(e.value)
    assert "\n" not in str(e.value)
