"""Rows that ask: one question for each category, that branch from an argument or stand in rows of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
from kinds import KINDS
from test_classify import HOSTILE, hostile

from jaxvalues.data.arguments import AGAINST, Argument
from jaxvalues.data.batches import PlannedBatch, collate
from jaxvalues.data.subset import sample_pairs
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.formulations.question_rows import QuestionRows
from jaxvalues.templates.questions import QuestionTemplate, load_question_template

EOS = 2
ARGUMENTS = tiny.split().arguments[:6]
ONE = Argument("A1", "ban whaling", AGAINST, "whales feel pain")


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of each kind."""
    return KINDS[request.param](tmp_path_factory.mktemp(request.param))


def question_rows(
    tokenizer: Any = None, template: str = "answer", max_length: int = 10**6, **options: Any
) -> QuestionRows:
    options = {"start_ids": [], "end_ids": [], **options}
    return QuestionRows(tokenizer or tiny.asking_tokenizer(), load_question_template(template), max_length, **options)


def whole(template: QuestionTemplate, category: int, argument: Argument, mask: str = "") -> str:
    """The text of a row."""
    return template.context(argument) + mask.join(template.question(category, argument))


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_row_and_its_branches_are_the_whole_texts_tokenised(kind: Any) -> None:
    one = question_rows(kind, branches=True)
    tokens = one.encode(ARGUMENTS)
    assert (len(tokens), tokens.questions.categories.tolist()) == (6, [list(range(20))] * 6)
    branches = [row[row >= 0].tolist() for row in tokens.questions.question_ids]
    for argument, row in zip(ARGUMENTS, tokens.ids, strict=True):
        for category, branch in enumerate(branches):
            assert [*row, *branch] == ids_of(kind, whole(one.template, category, argument))


def test_rows_of_their_own_are_the_branches_joined() -> None:
    together, apart = (
        question_rows(branches=True, end_ids=[EOS]).encode(ARGUMENTS),
        question_rows(end_ids=[EOS]).encode(ARGUMENTS),
    )
    assert (len(apart), apart.questions.question_ids, apart.num_arguments) == (120, None, 6)
    for row, argument, (category,) in zip(apart.ids, apart.questions.argument, apart.questions.categories, strict=True):
        branch = together.questions.question_ids[category]
        assert row.tolist() == [*together.ids[argument], *branch[branch >= 0]]
        assert (row[-1], np.count_nonzero(row == EOS)) == (EOS, 1)


@pytest.mark.parametrize("branches", [False, True])
def test_the_pairs_that_are_asked_for_are_asked_with_their_labels(branches: bool) -> None:
    labels = tiny.split().labels[:6]
    arguments, categories = pairs = sample_pairs(labels, 0.5, 3)
    tokens = question_rows(branches=branches).encode(ARGUMENTS, labels, pairs)
    assert len(tokens) == len(arguments) == labels.sum() + round(labels.sum() / 2)
    assert (tokens.questions.categories[:, 0] == categories).all()
    assert tokens.labels.tolist() == [[labels[pair]] for pair in zip(*pairs, strict=True)]
    every = question_rows(branches=branches).encode(ARGUMENTS, labels)
    expected = labels if branches else labels.reshape(-1, 1)
    np.testing.assert_array_equal(every.labels, expected)
    for row, argument, category in zip(tokens.ids, arguments, categories, strict=True):
        assert row.tolist() == every.ids[argument if branches else 20 * argument + category].tolist()
    batch = collate(tokens, PlannedBatch(90, np.arange(5)), 8, pad_id=1)
    assert batch["categories"].tolist() == [[category] for category in (*categories[:5], *[categories[0]] * 3)]
    assert ("question_ids" in batch) is branches
    assert batch["weights"].tolist() == [[1]] * 5 + [[0]] * 3


def test_logits_are_folded_where_argument_and_category_meet() -> None:
    logits = np.random.default_rng(0).standard_normal((6, 20)).astype(np.float32)
    for branches in (False, True):
        tokens = question_rows(branches=branches).encode(ARGUMENTS)
        np.testing.assert_array_equal(tokens.to_arguments(logits if branches else logits.reshape(-1, 1)), logits)


@pytest.mark.parametrize("branches", [False, True])
def test_only_premises_are_shortened_and_rows_leave_what_is_reserved(branches: bool) -> None:
    long = replace(ONE, premise="whales feel " * 200)
    one = question_rows(max_length=48, branches=branches, reserved=3)
    tokens = one.encode([ONE, long])
    assert tokens.truncated == 1
    rows = [*tokens.ids]
    if branches:
        longest = (tokens.questions.question_ids >= 0).sum(axis=1).max()
        assert 43 <= tokens.lengths[1] + longest + 3 <= 48
        rows = [[*row, *branch[branch >= 0]] for row in rows for branch in tokens.questions.question_ids]
    assert max(map(len, rows)) <= 45
    for row, category in zip(rows[20:], range(20), strict=True):
        before, after = whole(one.template, category, replace(long, premise="@")).split("@")
        text = tiny.asking_tokenizer().decode(row).strip()
        assert text.startswith(before.strip())
        assert text.endswith(after)
        assert set(text[len(before) - 1 : -len(after)].split()) == {"whales", "feel"}


def test_questions_that_leave_no_room_say_what_they_need() -> None:
    for branches in (False, True):
        nothing, template = replace(ONE, conclusion="", premise=""), load_question_template("answer")
        texts = [whole(template, category, nothing) for category in range(20)]
        empty = max(len(ids_of(tiny.asking_tokenizer(), text)) for text in texts)
        with pytest.raises(ConfigError) as error:
            question_rows(max_length=empty + 2, reserved=2, branches=branches)
        said = (
            f"the template answer and its descriptions take up to {empty + 2} tokens, and data.max_length {empty + 2}"
        )
        assert said in str(error.value)
        question_rows(max_length=empty + 3, reserved=2, branches=branches)


@pytest.mark.slow
def test_whatever_an_argument_holds_it_breaks_no_row(kind: Any) -> None:
    arguments = list(hostile(30))
    special = set(kind.all_special_ids) - {kind.unk_token_id}
    for branches in (False, True):
        one = question_rows(kind, max_length=200, branches=branches)
        rows = one.encode(arguments).ids
        assert max(map(len, rows)) <= 200
        assert not any(special & set(row.tolist()) for row in rows)
    frame = ids_of(kind, "Question: Given the premise:")
    for text in (*HOSTILE, "", "\0", "\x1b[31m", "\u202eabc"):
        assert one.encode([replace(ONE, premise=text)]).ids[0][: len(frame)].tolist() == frame


def test_masks_stand_where_the_template_has_one(kind: Any) -> None:
    for masks in (1, 3):
        one = question_rows(
            kind, "masked_choice", start_ids=[kind.cls_token_id], end_ids=[kind.sep_token_id], num_masks=masks
        )
        hostile_one = replace(ONE, premise=f"{kind.mask_token} {kind.sep_token} feel")
        for ids in one.encode([ONE, hostile_one]).ids:
            row = ids.tolist()
            at = row.index(kind.mask_token_id)
            assert row[at : at + masks] == [kind.mask_token_id] * masks
            assert row.count(kind.mask_token_id) == masks
            assert (row[0], row[-1], row.count(kind.sep_token_id)) == (kind.cls_token_id, kind.sep_token_id, 1)


def test_an_argument_that_cannot_be_read_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="the premise of A1 is nan, expected text"):
        question_rows().encode([ONE, replace(ONE, premise=float("nan"))])


def test_no_arguments_are_no_rows() -> None:
    for branches in (False, True):
        tokens = question_rows(branches=branches).encode([])
        assert (len(tokens), tokens.num_arguments, tokens.truncated) == (0, 0, 0)


def test_answers_of_each_category_come_with_its_questions() -> None:
    answers = np.full((20, 2, 3), -1, np.int32)
    answers[:, 0, 0] = np.arange(20) + 100
    answers[7, 1] = [5, 6, 7]
    tokens = question_rows(answers=answers, end_ids=[EOS]).encode([ONE], pairs=(np.array([0, 0]), np.array([7, 3])))
    batch = collate(tokens, PlannedBatch(90, np.arange(2)), 2, pad_id=1)
    assert batch["answer_ids"][:, 0].tolist() == [[[107, 0, 0], [5, 6, 7]], [[103, 0, 0], [0, 0, 0]]]
    assert batch["answer_mask"][:, 0].tolist() == [[[1, 0, 0], [1, 1, 1]], [[1, 0, 0], [0, 0, 0]]]
    assert CATEGORIES[7] in tiny.asking_tokenizer().decode(tokens.ids[0])
