"""`classify`: arguments as token rows, whatever their text holds."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from kinds import KINDS

from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument
from jaxvalues.data.tokenizers import load_tokenizer, train_tokenizer
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.formulations.classify import Classify
from jaxvalues.templates.template import load_template

CLS, PAD, SEP = 0, 1, 2
HOSTILE = [
    "😀", "👩\u200d👩\u200d👧", "🇩🇪🇫🇷", "مرحبا بالعالم", "שלום", "e\u0301\u0323", "字" * 60, "zero\u200bwidth", "a\0b",
    "\x07\x1b[0m", "\u202eright", "\ufeff", "[SEP]", "[MASK] [CLS]", "</s>", "<mask>", "<s>", "{premise}", "x" * 150,
    "ﷺ", "\u00a0", "İ",
]  # fmt: skip


def hostile(count: int) -> Iterator[Argument]:
    """Arguments of random words in all sorts of writing, from none to sixty."""
    random_ = random.Random(0)
    words = [*HOSTILE, "whales", "feel", "pain"]
    for i in range(count):
        conclusion, premise = (" ".join(random_.choices(words, k=random_.randrange(60))) for _ in range(2))
        yield Argument(f"A{i}", conclusion, random_.choice((IN_FAVOR, AGAINST)), premise)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of each kind."""
    return KINDS[request.param](tmp_path_factory.mktemp(request.param))


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


def test_a_row_that_just_fits_is_not_cut() -> None:
    length = len(encode(("c", "some words here")).ids[0])
    assert encode(("c", "some words here"), max_length=length).truncated == 0
    assert encode(("c", "some words here"), max_length=length - 1).truncated == 1


def test_the_premise_is_cut_then_the_conclusion_and_both_are_counted() -> None:
    long = "word " * 10_000
    tokens = encode(("we should ban it", long), ("c", "short"), (long, "p"), max_length=32)
    assert tokens.truncated == 2
    assert 30 <= tokens.lengths.max() <= 32
    conclusion, stance, premise = segments(tokens.ids[0])
    assert (conclusion, stance) == ("we should ban it", "supporting")
    assert set(premise.split()) == {"word"}
    assert segments(tokens.ids[1]) == ["c", "supporting", "short"]
    conclusion, *rest = segments(tokens.ids[2])
    assert (set(conclusion.split()), rest) == ({"word"}, ["supporting", ""])


@pytest.mark.parametrize("template", ["cls", "joined"])
def test_ids_are_those_of_the_longest_shorter_argument(kind: Any, template: str) -> None:
    whole = Classify(kind, load_template(template), 10**6)
    for one in tiny.split().arguments[:12]:
        words = [one.premise[: word.end()] for word in re.finditer(r"\S+", one.premise)]
        candidates = [replace(one, premise=premise) for premise in ("", *words)]
        rows = whole.encode(candidates).ids
        for limit in {len(rows[0]), len(rows[3]), len(rows[-1]) - 1}:
            (row,) = Classify(kind, load_template(template), limit).encode([one]).ids
            assert row.tolist() == [row for row in rows if len(row) <= limit][-1].tolist()


def test_rows_that_fit_are_the_whole_text_tokenised(kind: Any) -> None:
    arguments = tiny.split().arguments[:50]
    tokens = Classify(kind, load_template("cls"), 512).encode(arguments)
    assert tokens.truncated == 0
    for one, row in zip(arguments, tokens.ids, strict=True):
        (text,) = load_template("cls").render(one)
        assert row[1:-1].tolist() == kind(text, add_special_tokens=False)["input_ids"]


@pytest.mark.slow
def test_random_unicode_never_breaks_a_row(kind: Any) -> None:
    arguments = list(hostile(200))
    for template, limit in ((load_template("joined"), 24), (load_template("cls"), 90), (load_template("cls"), 10**6)):
        classify = Classify(kind, template, limit)
        tokens = classify.encode(arguments)
        assert tokens.lengths.max() <= limit
        assert (tokens.truncated > 50) == (limit < 100)
        special = set(kind.all_special_ids) - {kind.unk_token_id}
        for one, row in zip(arguments, tokens.ids, strict=True):
            assert (row[0], row[-1]) == (kind.cls_token_id, kind.sep_token_id)
            assert [id for id in row[1:].tolist() if id in special] == [kind.sep_token_id] * len(template.segments)
            shown = kind.decode(row.tolist()).lower()
            assert ("supporting" if one.stance == IN_FAVOR else "against") in shown
            assert "\ufffd" not in shown  # half of a character


@pytest.mark.parametrize("text", [*HOSTILE, "", " \t\n", "\0", "\x1b[31m", "\u200b\ufeff", "\u202eabc"])
def test_a_hostile_text_leaves_its_neighbours_alone(text: str, kind: Any) -> None:
    classify = Classify(kind, load_template("joined"), 64)
    plain, hostile = (Argument("A1", "we should ban it", AGAINST, premise) for premise in ("p", text))
    frame = classify.encode([replace(plain, premise="")]).ids[0][:-1].tolist()
    (row,) = classify.encode([hostile]).ids
    assert row[: len(frame)].tolist() == frame
    many = classify.encode([plain, hostile, plain]).ids
    assert many[1].tolist() == row.tolist()
    assert many[0].tolist() == many[2].tolist() == classify.encode([plain]).ids[0].tolist()


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        (Argument("A7", "c", IN_FAVOR, "half \ud83d"), r"the premise of A7 contains the unpaired surrogate '\\ud83d'"),
        (Argument("A7", "\udc00", IN_FAVOR, "p"), r"the conclusion of A7 contains the unpaired surrogate '\\udc00'"),
        (Argument("A7", "c", "for", "p"), "the stance of A7 is 'for', expected 'in favor of' or 'against'"),
        (Argument("A7", "c", IN_FAVOR, float("nan")), "the premise of A7 is nan, expected text"),
        (Argument("A7", None, IN_FAVOR, "p"), "the conclusion of A7 is None, expected text"),
    ],
)
def test_an_argument_that_cannot_be_read_is_refused_by_name(argument: Argument, sentence: str) -> None:
    classify = Classify(tiny.tokenizer(), load_template("cls"), 64)
    with pytest.raises(UserError, match=sentence):
        classify.encode([Argument("A1", "c", IN_FAVOR, "p"), argument])


def test_descriptions_stay_whole_behind_a_long_argument(kind: Any) -> None:
    template = load_template("joined", "name")
    room = len(kind(template.descriptions)["input_ids"]) + 40
    tokens = Classify(kind, template, room).encode([Argument("A1", "we should", AGAINST, "word " * 500)])
    assert (tokens.truncated, tokens.lengths.max() <= room) == (1, True)
    row = tokens.ids[0].tolist()
    last = kind(template.descriptions, add_special_tokens=False)["input_ids"]
    assert row[-len(last) - 2 :] == [kind.sep_token_id, *last, kind.sep_token_id]
    assert row.count(kind.sep_token_id) == 4
    whole = Classify(kind, load_template("joined"), 10**6).encode([Argument("A1", "we should", AGAINST, "word")]).ids[0]
    assert row[: len(whole) - 1] == whole[:-1].tolist()


def test_descriptions_that_leave_no_room_say_what_they_need() -> None:
    template = load_template("cls", "values")
    described = len(tiny.tokenizer()(template.descriptions, add_special_tokens=False)["input_ids"])
    alone = Classify(tiny.tokenizer(), load_template("cls"), 64).encode([Argument("", "", IN_FAVOR, "")]).lengths[0]
    needed = described + 1 + alone
    with pytest.raises(ConfigError) as error:
        Classify(tiny.tokenizer(), template, needed)
    assert f"the descriptions take {described} tokens, {needed} with the template's own words" in str(error.value)
    assert f"data.max_length {needed} leaves none" in str(error.value)
    Classify(tiny.tokenizer(), template, needed + 1)


def test_only_a_template_too_long_by_itself_is_cut_at_its_end() -> None:
    tokens = encode(("c", "p"), template="cls", max_length=8)
    whole = encode(("", ""), template="cls").ids[0]
    assert tokens.ids[0].tolist() == [*whole[:7], SEP]
    assert tokens.truncated == 1


def test_a_tokenizer_without_cls_token_gives_one_segment_without_a_frame() -> None:
    tokenizer = train_tokenizer(["some text"], 300, 64)
    tokenizer.cls_token = None
    (row,) = Classify(tokenizer, load_template("cls"), 256).encode([Argument("A1", "c", IN_FAVOR, "p </s>")]).ids
    (text,) = load_template("cls").render(Argument("A1", "c", IN_FAVOR, "p </s>"))
    assert tokenizer.decode(row).strip() == text
    assert tokenizer.sep_token_id not in row
    for template, said in ((load_template("joined"), "3 segments"), (load_template("cls", "name"), "2 segments")):
        with pytest.raises(ConfigError, match=rf"{said}, but this \w+ has no \[CLS\] and \[SEP\] tokens"):
            Classify(tokenizer, template, 256)
