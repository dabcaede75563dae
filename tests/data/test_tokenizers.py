"""The trained tokenizer: the same in every process, lossless, and readable again from a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from kinds import texts, wordpiece
from transformers import AutoTokenizer

from jaxvalues.data.tokenizer_source import PROBE
from jaxvalues.data.tokenizers import check_known, load_tokenizer, pad_id, train_tokenizer, vocabulary_size
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


NAMES = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3}
SENTENCEPIECE: dict[str, tuple[str, dict[str, Any]]] = {
    "deberta-v2": (
        "spm.model",
        {
            "pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]",
            "eos_piece": "[SEP]", "unk_piece": "[UNK]",
        },
    ),
    "t5": ("spiece.model", {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "pad_piece": "<pad>"}),
    "xlm-roberta": ("sentencepiece.bpe.model", {"unk_id": 0, "bos_id": 1, "eos_id": 2}),
}  # fmt: skip


def from_sentencepiece(kind: str, folder: Path, **options: Any) -> sentencepiece.SentencePieceProcessor:
    """Write a checkpoint folder whose tokenizer is a sentencepiece file alone. Returns sentencepiece's own reader."""
    name, pieces = SENTENCEPIECE[kind]
    folder.mkdir(exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts()), model_prefix=str(folder / "trained"), vocab_size=500, minloglevel=2,
        **pieces, **options,
    )  # fmt: skip
    (folder / "trained.model").rename(folder / name)
    (folder / "trained.vocab").unlink()
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / name))


def tokens(tokenizer: Any, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("kind", SENTENCEPIECE)
def test_a_sentencepiece_file_alone_gives_its_own_tokens(kind: str, tmp_path: Path) -> None:
    """Also in the folder of a run or an export, where transformers reads the tokenizer again."""
    pieces = from_sentencepiece(kind, tmp_path / "checkpoint")
    loaded = load_tokenizer(tmp_path / "checkpoint")
    loaded.save_pretrained(tmp_path / "run")
    (tmp_path / "run/config.json").write_text(json.dumps({"model_type": kind}))
    again, plain = load_tokenizer(tmp_path / "run"), AutoTokenizer.from_pretrained(tmp_path / "run")
    for text in (*PROBE, *texts()[:20], "fast\xa0food"):
        expected = pieces.encode(text, out_type=str)
        expected = [piece if pieces.piece_to_id(piece) != pieces.unk_id() else loaded.unk_token for piece in expected]
        for tokenizer in (loaded, again, plain):
            assert tokens(tokenizer, text) == expected, text
    original = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    for tokenizer in (loaded, again, plain):
        assert tokenizer.get_vocab() == original.get_vocab()
        assert tokenizer.special_tokens_map == original.special_tokens_map
        assert set(tokenizer.all_special_ids) == set(original.all_special_ids)
        assert tokenizer("a word", "b")["input_ids"] == original("a word", "b")["input_ids"]
    if kind == "deberta-v2":
        assert loaded.unk_token not in tokens(loaded, "fast\xa0food")
        assert original.unk_token in tokens(original, "fast\xa0food")  # or else the repair can go
        assert {name: loaded.get_vocab()[name] for name in NAMES} == NAMES


def test_a_normalizer_that_does_nothing_is_kept(tmp_path: Path) -> None:
    pieces = from_sentencepiece("deberta-v2", tmp_path, normalization_rule_name="identity")
    assert tokens(load_tokenizer(tmp_path), "a\xa0fast zoo") == [
        piece if pieces.piece_to_id(piece) != pieces.unk_id() else "[UNK]"
        for piece in pieces.encode("a\xa0fast zoo", out_type=str)
    ]


def test_what_a_tokenizer_json_says_is_kept(tmp_path: Path) -> None:
    """transformers makes a DebertaV2Tokenizer of the vocabulary in it, with another normalizer."""
    from_sentencepiece("deberta-v2", tmp_path / "checkpoint")
    load_tokenizer(tmp_path / "checkpoint").save_pretrained(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved/tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "DebertaV2Tokenizer", "do_lower_case": False, "split_by_punct": False}
    (tmp_path / "saved/tokenizer_config.json").write_text(json.dumps(settings))
    assert "[UNK]" in tokens(AutoTokenizer.from_pretrained(tmp_path / "saved"), "fast\xa0food")
    assert "[UNK]" not in tokens(load_tokenizer(tmp_path / "saved"), "fast\xa0food")


@pytest.mark.parametrize(("option", "lowers"), [({}, False), ({"do_lower_case": True}, True)])
def test_a_setting_beside_a_tokenizer_json_still_counts(option: dict, lowers: bool, tmp_path: Path) -> None:
    cased = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "Yes", "yes", "ABC", "abc"]
    (tmp_path / "vocab.txt").write_text("\n".join(cased))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **option}))
    assert tokens(load_tokenizer(tmp_path), "Yes") == ["yes" if lowers else "Yes"]


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "deberta", "deberta-v2", "gpt2", "t5"])
def test_no_tokenizer_is_invented(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(UserError, match=r"has no tokenizer.json and no .*, so it has no tokenizer: add the files") as e:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(e.value)
    assert len(str(e.value)) < 300


def test_half_of_the_files_are_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    (tmp_path / "vocab.json").write_text('{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "a": 5}')
    with pytest.raises(UserError, match=r"could not be loaded .*merges|no merges.txt"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": 3}', "null"])
def test_a_faulty_file_is_a_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError) as e:
        load_tokenizer(tmp_path)
    assert len(str(e.value)) < 300 + len(str(tmp_path))


def test_a_tokenizer_of_other_texts_is_refused(tmp_path: Path) -> None:
    tokenizer = wordpiece(tmp_path)
    check_known(tokenizer, texts()[:50], "here")
    for unfit in (["Запретить китобойный промысел"], ["", " "]):
        with pytest.raises(
            UserError, match=r"^here: this tokenizer of \d+ tokens does not fit the arguments, (\d+%|they)"
        ):
            check_known(tokenizer, unfit, "here")


def test_ids_that_a_tokenizer_leaves_out_need_embeddings_too() -> None:
    tokenizer = train_tokenizer(TEXTS, 350, 64)
    size = len(tokenizer)
    assert vocabulary_size(tokenizer) == size
    tokenizer.add_tokens(["<extra>"])
    assert vocabulary_size(tokenizer) == size + 1
